/*
 * Upgrades with an HTTP/2 origin: an extended CONNECT (RFC 8441), and a byte stream for the tunnel
 * behind it, which whoever has the client's side can use as he uses an HTTP/1 origin's. It is one
 * end of a socket pair; a coroutine pumps between the other end and the HTTP/2 stream.
 *
 *   client's side ◀──▶ socket pair ◀──h2_tunnel_run──▶ stream of HTTP/2 ◀──▶ origin
 */
#include "http/h2_client_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "http/h2_tunnel.h"
#include "tls/digest.h"

enum {
    /* The client's side has its own bounds, and closes when they are reached; this one is for an
     * origin that does not end its side then. */
    IDLE_TIMEOUT_MS = 3600000,
};

struct slice h2_client_connect_protocol(const struct h2_client_stream *stream,
                                        const struct client_head *head)
{
    nghttp2_session *session = stream->client->transport.session;
    if (!head->upgrade ||
        nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 1)
        return slice_of(NULL, 0);
    return headers_get_id(&head->request->headers, HEADER_UPGRADE);
}

/* A client of HTTP/1 wants to see that its key was understood. */
static int add_websocket_accept(const struct request *request, struct headers *headers)
{
    struct slice key = headers_get(&request->headers, SLICE("sec-websocket-key"));
    char *accept = arena_alloc(headers->arena, WEBSOCKET_ACCEPT_BYTES);
    if (!key.ptr)
        return 0;
    if (!accept || digest_websocket_accept(key, accept) != 0)
        return -ENOMEM;
    return headers_add(headers, SLICE("Sec-WebSocket-Accept"),
                       slice_of(accept, WEBSOCKET_ACCEPT_BYTES));
}

int h2_client_accept_connect(struct h2_client_stream *stream, struct response *response)
{
    const struct request *request = stream->exchange.request;
    struct slice protocol = headers_get_id(&request->headers, HEADER_UPGRADE);
    if (response->status < 200 || response->status > 299)
        return 0;
    response->status = 101;
    int result = headers_add_id(&response->headers, HEADER_UPGRADE, SLICE("Upgrade"), protocol);
    if (result == 0 && slice_equal_nocase(protocol, SLICE("websocket")))
        result = add_websocket_accept(request, &response->headers);
    return result == 0 ? 0 : -ENOMEM;
}

/* One of two ends, each of which receives what the other is sent. */
struct pair_end {
    struct stream stream;   /* first */
    struct pair_end *other; /* NULL: closed */
};

static void end_closed(struct stream *stream)
{
    struct pair_end *end = container_of(stream, struct pair_end, stream);
    if (end->other)
        end->other->other = NULL;
    if (end->other && stream->reset)
        stream_expect_reset(&end->other->stream);
    free(end);
}

static struct pair_end *end_over(struct io *io, int fd)
{
    struct pair_end *end = calloc(1, sizeof(*end));
    if (!end)
        return NULL;
    stream_init(&end->stream, io, fd);
    end->stream.local_socket = true;
    end->stream.on_closed = end_closed;
    stream_start(&end->stream);
    return end;
}

static bool open_pair(struct io *io, struct pair_end *pair[2])
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        pair[i] = end_over(io, fds[i]);
        if (!pair[i])
            close(fds[i]);
    }
    if (pair[0] && pair[1]) {
        pair[0]->other = pair[1];
        pair[1]->other = pair[0];
        return true;
    }
    for (int i = 0; i < 2; i++)
        if (pair[i])
            stream_abort(&pair[i]->stream);
    return false;
}

struct connection_to_origin {
    struct h2_client_stream *stream;
    struct stream *near; /* our end of the pair */
};

static void pump_main(void *arg)
{
    struct connection_to_origin *tunnel = arg;
    struct h2_client_stream *stream = tunnel->stream;
    const struct h2_tunnel ends = {
        .input = &stream->input,
        .output = &stream->output,
        .other = tunnel->near,
        .idle_timeout_ms = IDLE_TIMEOUT_MS,
        .send_timeout_ms = stream->exchange.send_timeout_ms,
        .deadline = DEADLINE_NEVER,
    };
    struct tunnel_result told; /* by the tunnel of the client's side */
    free(tunnel);
    stream->input.timeout_ms = 0;
    int result = h2_tunnel_run(&ends, &told);
    stream->connect = result != 0; /* both sides have ended: nothing is to be reset */
    stream->exchange.response_ended = true;
    h2_client_end_exchange(&stream->exchange, true);
}

struct stream *h2_client_detach(struct client_exchange *exchange)
{
    struct h2_client_stream *stream = container_of(exchange, struct h2_client_stream, exchange);
    struct connection_to_origin *tunnel = malloc(sizeof(*tunnel));
    struct pair_end *pair[2] = {NULL, NULL};
    stream->exchange.request = NULL; /* it ends before the tunnel does */
    if (tunnel && open_pair(stream->client->stream.io, pair)) {
        *tunnel = (struct connection_to_origin){stream, &pair[0]->stream};
        if (coro_start(pump_main, tunnel))
            return &pair[1]->stream;
        stream_abort(&pair[0]->stream);
        stream_abort(&pair[1]->stream);
    }
    free(tunnel);
    h2_client_end_exchange(exchange, false);
    return NULL;
}
