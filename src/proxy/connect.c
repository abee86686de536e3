#include "proxy/connect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/exchange.h"
#include "net/dns.h"
#include "net/stream.h"

enum {
    ADDRESSES_MAX = 8,
    KEEPALIVE_MS = 60000, /* a silent end is asked whether it is there, as peers of upstreams are */
};

struct pattern {
    struct slice host; /* "*": any; "*.example.org": what ends in ".example.org" */
    uint16_t port;     /* 0: any */
};

struct connect {
    struct pattern *allow;
    unsigned allow_count;
    uint32_t timeout_ms;
};

/* --- What is allowed -------------------------------------------------------------------------- */

static bool parse_pattern(const char *text, struct pattern *pattern)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || !colon[1])
        return false;
    pattern->host = slice_of(text, (size_t)(colon - text));
    if (text[0] == '[' && colon[-1] == ']')
        pattern->host = slice_of(text + 1, pattern->host.len - 2);
    if (strcmp(colon + 1, "*") == 0)
        return true;
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    pattern->port = (uint16_t)port;
    return !*end && port > 0 && port <= UINT16_MAX;
}

struct connect *connect_create(struct arena *arena, const struct connect_config *config,
                               const char **error)
{
    struct connect *connect = arena_zalloc(arena, sizeof(*connect));
    *error = NULL;
    if (!connect)
        return NULL;
    connect->allow = arena_zalloc(arena, (config->allow_count + 1) * sizeof(struct pattern));
    if (!connect->allow)
        return NULL;
    connect->allow_count = config->allow_count;
    connect->timeout_ms = config->connect_timeout_ms;
    for (unsigned i = 0; i < config->allow_count; i++)
        if (!parse_pattern(config->allow[i], &connect->allow[i])) {
            *error = arena_printf(arena, "\"%s\" is not host:port", config->allow[i]).ptr;
            return NULL;
        }
    return connect;
}

static bool host_matches(struct slice pattern, struct slice host)
{
    if (slice_equal(pattern, SLICE("*")))
        return true;
    if (!slice_starts_with(pattern, SLICE("*.")))
        return slice_equal_nocase(pattern, host);
    size_t suffix = pattern.len - 1; /* with its dot */
    return host.len > suffix && slice_equal_nocase(slice_of(pattern.ptr + 1, suffix),
                                                   slice_of(host.ptr + host.len - suffix, suffix));
}

static bool allowed(const struct connect *connect, struct slice host, uint16_t port)
{
    for (unsigned i = 0; i < connect->allow_count; i++) {
        const struct pattern *pattern = &connect->allow[i];
        if ((!pattern->port || pattern->port == port) && host_matches(pattern->host, host))
            return true;
    }
    return false;
}

/* --- Connecting ------------------------------------------------------------------------------- */

static int find_addresses(struct request *request, struct slice host, uint16_t port,
                          struct address *addresses, int64_t deadline)
{
    unsigned ttl_s;
    const char *why;
    if (address_parse(request->authority, &addresses[0], &why) == 0)
        return 1;
    struct slice name = arena_copy(request->arena, host);
    if (!name.ptr)
        return -ENOMEM;
    int count = dns_resolve(request->exchange->io, name.ptr, port, addresses, ADDRESSES_MAX, &ttl_s,
                            deadline);
    return count == 0 ? -ENOENT : count;
}

static void free_stream(struct stream *stream)
{
    free(stream);
}

/* Tries one address after the other, each with its share of the time. */
static int open_stream(struct io *io, const struct address *addresses, int count, int64_t deadline,
                       struct stream **out)
{
    struct stream *stream = malloc(sizeof(*stream));
    int result = stream ? -EHOSTUNREACH : -ENOMEM;
    for (int i = 0; stream && i < count; i++) {
        int64_t now_ms = io_now_ms(io);
        result =
            stream_connect(stream, io, &addresses[i], now_ms + (deadline - now_ms) / (count - i));
        if (result == 0 || result == -ECANCELED)
            break;
    }
    if (result < 0) {
        free(stream);
        return result;
    }
    stream->on_closed = free_stream;
    stream_watch_peer(stream, KEEPALIVE_MS, 0);
    stream_start(stream);
    *out = stream;
    return 0;
}

static struct response *failure(struct request *request, int error)
{
    struct slice text =
        arena_printf(request->arena, "tunnel to %.*s: %s", (int)request->authority.len,
                     request->authority.ptr, strerror(-error));
    if (error == -ECANCELED)
        return NULL;
    return response_create_error(request, error == -ETIMEDOUT ? 504 : 502,
                                 error == -ETIMEDOUT ? RESPONSE_TIMED_OUT : RESPONSE_CONNECT_FAILED,
                                 text);
}

static struct response *open_tunnel(const struct connect *connect, struct request *request,
                                    struct slice host, uint16_t port)
{
    struct address addresses[ADDRESSES_MAX];
    struct io *io = request->exchange->io;
    struct stream *stream;
    int64_t deadline = io_now_ms(io) + connect->timeout_ms;
    if (request->exchange->total_deadline < deadline)
        deadline = request->exchange->total_deadline;
    int result = find_addresses(request, host, port, addresses, deadline);
    if (result > 0)
        result = open_stream(io, addresses, result, deadline, &stream);
    if (result < 0)
        return failure(request, result);
    struct response *response = response_create(request, 200);
    if (!response || response_set_tunnel(response, stream) != 0) {
        stream_abort(stream);
        return NULL;
    }
    return response;
}

static struct response *handle(void *self, struct request *request, struct ml_next *next)
{
    struct slice host;
    uint16_t port;
    const char *why;
    if (request->method != METHOD_CONNECT)
        return ml_next_call(next, request);
    if (address_split(request->authority, &host, &port, &why) != 0 || port == 0)
        return response_create_text(request, 400, SLICE("CONNECT needs host:port\n"));
    if (!allowed(self, host, port))
        return response_create_text(request, 403, SLICE("tunnels to there are not allowed\n"));
    return open_tunnel(self, request, host, port);
}

const ml_layer connect_layer = {.abi = ML_ABI, .name = "tunnel", .handle = handle};
