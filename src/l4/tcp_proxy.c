#include "l4/tcp_proxy.h"

#include <errno.h>

#include "base/log.h"
#include "l4/conn.h"
#include "proxy/dial.h"

static struct response *failure(struct request *request, int error, struct slice why)
{
    if (error == -ECANCELED)
        return NULL;
    if (error == -ETIMEDOUT)
        return response_create_error(request, 504, RESPONSE_TIMED_OUT, why);
    return response_create_error(request, 502, RESPONSE_CONNECT_FAILED, why);
}

static void note_peer(struct l4_conn *conn, const struct stream *stream)
{
    char text[ADDRESS_TEXT_MAX];
    size_t len = address_format(&stream->remote, text);
    conn->peer = arena_copy(&conn->exchange->arena, slice_of(text, len));
}

struct response *l4_splice(struct upstream *upstream, struct request *request,
                           const struct l4_splice *options)
{
    struct l4_conn *conn = l4_conn_of(request);
    struct stream *stream;
    struct slice why;
    if (!conn)
        return response_create_error(request, 500, RESPONSE_LAYER_FAILED,
                                     SLICE("a layer of layer 4 stands in a chain of HTTP"));
    int result = upstream_dial(upstream, request, &stream, &why);
    if (result < 0)
        return failure(request, result, why);
    struct response *response = response_create(request, 200);
    if (!response || response_set_tunnel(response, stream) != 0) {
        stream_abort(stream);
        return response_create_error(request, 503, RESPONSE_OVERLOADED, SLICE("out of memory"));
    }
    note_peer(conn, stream);
    if (options->idle_timeout_ms != L4_TIMEOUT_UNSET)
        conn->idle_timeout_ms = options->idle_timeout_ms;
    if (options->total_timeout_ms != L4_TIMEOUT_UNSET)
        conn->total_timeout_ms = options->total_timeout_ms;
    return response;
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    const struct l4_tcp_proxy *proxy = self;
    (void)next;
    return l4_splice(proxy->upstream, request, &proxy->options);
}

const ml_layer l4_tcp_proxy_layer = {.abi = ML_ABI, .name = "tcp_proxy", .handle = handle};
