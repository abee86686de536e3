#include "proxy/dial.h"

#include <errno.h>
#include <string.h>

#include "base/counters.h"
#include "base/log.h"
#include "http/exchange.h"
#include "io/wait.h"
#include "proxy/pick.h"
#include "proxy/send_proxy.h"

enum { FAILURES_LOGGED_PER_S = 10 };

/* One search for a peer that takes the connection; on the caller's stack. */
struct dialing {
    struct upstream *upstream;
    struct request *request;
    struct tried tried;
    struct upstream_peer *entry; /* of the present attempt */
    struct slice why;            /* the last failure */
};

static void note_failure(struct dialing *dialing, const char *why)
{
    const char *peer = dialing->entry ? dialing->entry->peer->text : NULL;
    dialing->why =
        arena_printf(dialing->request->arena, "upstream \"%s\"%s%s: %s",
                     dialing->upstream->config.name, peer ? ", peer " : "", peer ? peer : "", why);
    static struct log_limit limit;
    uint32_t suppressed;
    if (dialing->why.ptr && log_limit_pass(&limit, FAILURES_LOGGED_PER_S, &suppressed))
        log_warn("connection %llu: %s%s", (unsigned long long)dialing->request->id,
                 dialing->why.ptr, suppressed ? " (and more like it)" : "");
}

static int64_t attempt_deadline(const struct dialing *dialing)
{
    int64_t until = io_now_ms(dialing->upstream->io) + dialing->upstream->config.connect_timeout_ms;
    int64_t total = dialing->request->exchange->total_deadline;
    return until < total ? until : total;
}

static bool out_of_time(const struct dialing *dialing)
{
    return dialing->request->exchange->total_deadline <= io_now_ms(dialing->upstream->io);
}

/* Returns 0 when there is a peer to try. */
static int choose(struct dialing *dialing)
{
    struct upstream *upstream = dialing->upstream;
    int index =
        upstream_pick(upstream, dialing->request, &dialing->tried, attempt_deadline(dialing));
    if (index >= 0) {
        dialing->entry = &upstream->balancer.peers[index];
        return 0;
    }
    if (index == PICK_NO_PEER)
        return -ECONNREFUSED; /* all were tried, and why it failed was noted */
    dialing->entry = NULL;
    if (index != -ECANCELED)
        note_failure(dialing, "no connection became free in time (connections_max)");
    return index;
}

bool dial_own_fault(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS ||
           error == -EADDRNOTAVAIL || error == -EMSGSIZE;
}

const char *dial_reason(int error)
{
    switch (error) {
    case -EPROTO:
        return "the TLS handshake failed";
    case -EMSGSIZE:
        return "the header of the PROXY protocol would be longer than 16 KiB";
    case -EMFILE:
        return "no file descriptor is left: raise the limit (ulimit -n)";
    case -ENFILE:
        return "the system has no file descriptor left: raise fs.file-max";
    case -EADDRNOTAVAIL:
        return "no local port is left for that address: widen net.ipv4.ip_local_port_range, or keep "
               "more connections idle (idle_max)";
    default:
        return strerror(-error);
    }
}

/* Decides on what follows a failed attempt: true if another one does. */
static bool try_again(struct dialing *dialing, int error, unsigned *attempts)
{
    struct upstream *upstream = dialing->upstream;
    if (error == -EAGAIN) { /* others have taken the room that the peer had */
        wait_sleep(upstream->io, io_now_ms(upstream->io) + PICK_ROOM_LOOK_MS);
        return !out_of_time(dialing);
    }
    if (out_of_time(dialing)) {
        note_failure(dialing, "the time to connect was over");
        return false;
    }
    note_failure(dialing, dial_reason(error));
    if (dial_own_fault(error))
        return false;
    struct peer *peer = dialing->entry->peer;
    peer_failed(peer, &upstream->config);
    bool again = (*attempts)++ < upstream->config.retries &&
                 pick_remember(upstream, &dialing->tried, dialing->entry, dialing->request->arena);
    if (again)
        counters_add_upstream(peer->counters, UPSTREAM_RETRIES, 1);
    return again;
}

int upstream_dial_with(struct upstream *upstream, struct request *request, struct dialer *dialer,
                       struct slice *why)
{
    struct dialing dialing = {.upstream = upstream, .request = request};
    unsigned attempts = 0;
    int result;
    int error = 0; /* of the last attempt */
    do {
        result = choose(&dialing);
        if (result < 0)
            break;
        result = error = dialer->connect(dialer, dialing.entry->peer, &upstream->config,
                                         attempt_deadline(&dialing));
        if (result != -EAGAIN)
            counters_add_upstream(dialing.entry->peer->counters, UPSTREAM_ATTEMPTS, 1);
    } while (result < 0 && result != -ECANCELED && try_again(&dialing, result, &attempts));
    *why = dialing.why;
    return result == -ECONNREFUSED && error ? error : result;
}

struct stream_dialer {
    struct dialer dialer; /* first */
    const struct request *request;
    struct stream **out;
};

static int connect_stream(struct dialer *dialer, struct peer *peer,
                          const struct upstream_config *config, int64_t deadline)
{
    struct stream_dialer *self = (struct stream_dialer *)dialer;
    struct peer_greeting greeting;
    int result = send_proxy_greet(config, self->request, &greeting);
    if (result == 0)
        result = peer_connect_stream(peer, config, &greeting, self->out, deadline);
    if (result == 0)
        peer_succeeded(peer);
    return result;
}

int upstream_dial(struct upstream *upstream, struct request *request, struct stream **out,
                  struct slice *why)
{
    struct stream_dialer dialer = {
        .dialer.connect = connect_stream, .request = request, .out = out};
    return upstream_dial_with(upstream, request, &dialer.dialer, why);
}
