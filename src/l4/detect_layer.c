#include "l4/detect_layer.h"

#include "l4/conn.h"
#include "l4/peek.h"

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    const struct l4_detect_layer *layer = self;
    const struct l4_conn *conn = l4_conn_of(request);
    if (!conn)
        return response_create_error(request, 500, RESPONSE_LAYER_FAILED,
                                     SLICE("a layer of layer 4 stands in a chain of HTTP"));
    struct stream *stream = &conn->connection->stream;
    int64_t until = io_now_ms(stream->io) + layer->timeout_ms;
    if (until > conn->exchange->total_deadline)
        until = conn->exchange->total_deadline;
    int protocol = l4_await_protocol(stream, until);
    if (protocol < 0)
        return NULL; /* the client has gone */
    if (protocol == L4_PROTOCOL_UNDECIDED)
        protocol = L4_PROTOCOL_OTHER;
    const struct chain *chain = layer->chains[protocol];
    return chain ? chain_run_then(chain, request, next) : ml_next_call(next, request);
}

const ml_layer l4_detect_layer = {.abi = ML_ABI, .name = "detect", .handle = handle};
