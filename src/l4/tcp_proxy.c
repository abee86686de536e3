#include "l4/tcp_proxy.h"

#include <errno.h>

#include "base/log.h"
#include "l4/conn.h"
#include "l4/udp_flow.h"
#include "proxy/dial.h"
#include "proxy/upstream_internal.h"

struct response *l4_dial_failure(struct request *request, int error, struct slice why)
{
    if (error == -ECANCELED)
        return NULL;
    if (error == -ETIMEDOUT)
        return response_create_error(request, 504, RESPONSE_TIMED_OUT, why);
    return response_create_error(request, 502, RESPONSE_CONNECT_FAILED, why);
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
    if (conn->of_datagrams != (upstream->config.protocol == UPSTREAM_UDP))
        return response_create_error(request, 500, RESPONSE_LAYER_FAILED,
                                     conn->of_datagrams
                                         ? SLICE("a flow of datagrams needs an upstream with "
                                                 "protocol = \"udp\"")
                                         : SLICE("the upstream is one of datagrams"));
    if (conn->flow)
        return udp_flow_splice(conn->flow, upstream, request, options);
    if (!conn->connection)
        return NULL;
    int result = upstream_dial(upstream, request, &stream, &why);
    if (result < 0)
        return l4_dial_failure(request, result, why);
    struct response *response = response_create(request, 200);
    if (!response || response_set_tunnel(response, stream) != 0) {
        stream_abort(stream);
        return response_create_error(request, 503, RESPONSE_OVERLOADED, SLICE("out of memory"));
    }
    conn->connected = response;
    l4_conn_note_peer(conn, &stream->remote);
    if (options->idle_timeout_ms != L4_TIMEOUT_UNSET)
        conn->idle_timeout_ms = options->idle_timeout_ms;
    if (options->total_timeout_ms != L4_TIMEOUT_UNSET)
        conn->total_timeout_ms = options->total_timeout_ms;
    return response;
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    const struct l4_proxy *proxy = self;
    (void)next;
    return l4_splice(proxy->upstream, request, &proxy->options);
}

const ml_layer l4_tcp_proxy_layer = {.abi = ML_ABI, .name = "tcp_proxy", .handle = handle};
const ml_layer l4_udp_proxy_layer = {.abi = ML_ABI, .name = "udp_proxy", .handle = handle};
