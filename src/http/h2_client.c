#include "http/h2_client_stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "io/wait.h"

enum {
    FAILURES_LOGGED_PER_S = 1,
    PING_ANSWER_MS = 15000, /* an origin that is only busy must have the time to answer */
};

static void stream_closed(struct stream *stream)
{
    struct h2_client *client = stream->owner;
    list_remove(&client->link);
    if (client->on_closed)
        client->on_closed(client);
    free(client);
}

static void arrival(struct stream *stream)
{
    struct h2_client *client = stream->owner;
    h2_transport_receive(&client->transport);
}

/* --- Pings ------------------------------------------------------------------------------------ */

static void start_ping_timer(struct h2_client *client, uint32_t ms)
{
    struct io *io = client->stream.io;
    client->heard_bytes = client->stream.bytes_in;
    if (ms)
        timer_start(io_timers(io), &client->ping, io_now_ms(io) + ms);
}

static bool silent(const struct h2_client *client)
{
    return client->heard_bytes == client->stream.bytes_in;
}

static void ping(struct h2_client *client)
{
    client->pinged = true;
    nghttp2_submit_ping(client->transport.session, NGHTTP2_FLAG_NONE, NULL);
    h2_transport_flush(&client->transport);
}

/* Anything that was heard is a sign of life. */
static void ping_due(struct timer *timer)
{
    struct h2_client *client = timer->owner;
    if (silent(client) && client->pinged) {
        log_debug("an origin does not answer an HTTP/2 ping: its connection is given up");
        h2_transport_end(&client->transport, -ETIMEDOUT);
        return;
    }
    client->pinged = false;
    client->doubtful = false;
    if (silent(client))
        ping(client);
    start_ping_timer(client, client->ping_ms);
}

void h2_client_doubt(struct h2_client *client)
{
    if (client->transport.ending || (client->doubtful && silent(client)))
        return;
    client->doubtful = true;
    ping(client);
    start_ping_timer(client, PING_ANSWER_MS);
}

/* --- Ending ----------------------------------------------------------------------------------- */

static void ended(struct h2_transport *transport, int error)
{
    struct h2_client *client = transport->owner;
    timer_stop(&client->ping);
    timer_stop(&client->idle);
    client->draining = true;
    client->stream_count++; /* so that the last one does not close it under us */
    for (struct list *node = client->streams.next, *next; node != &client->streams; node = next) {
        next = node->next;
        h2_client_stream_lost(container_of(node, struct h2_client_stream, link),
                              client->why ? -EPROTO : -ECONNRESET);
    }
    client->stream_count--;
    client->ended = true;
    h2_client_wake_opener(client);
    if (!client->stream_count)
        h2_transport_close(transport, error != 0);
}

static const struct h2_transport_ops transport_ops = {.ended = ended};

void h2_client_drain(struct h2_client *client)
{
    client->draining = true;
    if (!client->stream_count)
        h2_transport_terminate(&client->transport, NGHTTP2_NO_ERROR);
}

void h2_client_close(struct h2_client *client, bool reset)
{
    assert(!client->stream_count);
    timer_stop(&client->ping);
    timer_stop(&client->idle);
    list_remove(&client->link);
    if (!client->transport.closing)
        h2_transport_close(&client->transport, reset);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static int handshake(struct h2_client *client, const struct client_tls *tls,
                     const struct h2_client_options *options, int64_t deadline)
{
    int result = client_tls_begin(&client->stream, tls, deadline);
    if (result == 0 && tls->client && !client_tls_agreed(&client->stream, "h2")) {
        if (options->may_decline)
            return -EPROTONOSUPPORT;
        log_warn("the origin %s does not agree on HTTP/2 by ALPN", tls->name);
        return -EPROTO;
    }
    client->secure = tls->client != NULL;
    return result;
}

static void receive(void *client)
{
    h2_transport_receive(&((struct h2_client *)client)->transport);
}

static int begin_session(struct h2_client *client, const struct h2_client_options *options)
{
    struct h2_transport_options transport = {
        .header_list_max_bytes = options->head_max_bytes,
        .ops = &transport_ops,
        .owner = client,
        .callbacks = h2_client_callbacks(),
    };
    if (!transport.callbacks ||
        h2_transport_init(&client->transport, &client->stream, &transport) < 0)
        return -ENOMEM;
    client->stream.on_arrival = arrival;
    client->stream.send_stall_ms = options->send_stall_ms;
    client->streams_max = options->streams_max;
    client->ping_ms = options->ping_ms;
    start_ping_timer(client, client->ping_ms);
    coro_on_main(receive, client); /* what has come behind the handshake; flushes */
    return 0;
}

void h2_client_wake_opener(struct h2_client *client)
{
    if (client->opener)
        coro_wake(client->opener, 0);
}

static int await_settings(struct h2_client *client, int64_t deadline)
{
    int result = 0;
    client->stream_count++; /* so that its end does not free it */
    while (result == 0 && !client->settled && !client->draining) {
        client->opener = coro_self();
        result = wait_wake(client->stream.io, deadline);
        client->opener = NULL;
    }
    client->stream_count--;
    if (result == 0 && client->draining) /* it is over, or the origin has said goodbye at once */
        result = client->why ? -EPROTO : -ECONNRESET;
    return result;
}

static void log_failure(const struct h2_client *client, int error)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char origin[ADDRESS_TEXT_MAX];
    if (error == -ECANCELED || !log_limit_pass(&limit, FAILURES_LOGGED_PER_S, &suppressed))
        return;
    address_format(&client->stream.remote, origin);
    log_warn("HTTP/2 with the origin at %s cannot begin: %s (%u more were not logged)", origin,
             client->why ? client->why : strerror(-error), suppressed);
}

/* On a connected stream. On failure nothing is left. */
static int begin(struct h2_client *client, const struct client_tls *tls,
                 const struct h2_client_options *options, int64_t deadline)
{
    int result = handshake(client, tls, options, deadline);
    if (result == 0)
        result = begin_session(client, options);
    if (result == -EPROTONOSUPPORT) {
        stream_close(&client->stream);
        return result;
    }
    if (result < 0) {
        stream_abort(&client->stream);
        return result;
    }
    result = await_settings(client, deadline);
    if (result < 0) {
        log_failure(client, result);
        timer_stop(&client->ping);
        h2_transport_close(&client->transport, true);
    }
    return result;
}

int h2_client_open(struct h2_client **out, struct io *io, const struct address *address,
                   const struct client_tls *tls, const struct h2_client_options *options,
                   int64_t deadline)
{
    struct h2_client *client = calloc(1, sizeof(*client));
    if (!client)
        return -ENOMEM;
    int result = stream_connect(&client->stream, io, address, deadline);
    if (result < 0) {
        free(client);
        return result;
    }
    client->stream.owner = client;
    client->stream.on_closed = stream_closed;
    list_init(&client->streams);
    list_init(&client->link);
    timer_init(&client->idle, NULL, client);
    timer_init(&client->ping, ping_due, client);
    result = begin(client, tls, options, deadline);
    if (result == 0)
        *out = client;
    return result;
}

uint32_t h2_client_allowed(const struct h2_client *client)
{
    return nghttp2_session_get_remote_settings(client->transport.session,
                                               NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool h2_client_has_room(const struct h2_client *client)
{
    nghttp2_session *session = client->transport.session;
    if (client->draining || client->transport.ending || client->stream.end != STREAM_OPEN)
        return false;
    if (client->doubtful && silent(client))
        return false;
    return client->stream_count < client->streams_max &&
           client->stream_count < h2_client_allowed(client) &&
           nghttp2_session_check_request_allowed(session);
}
