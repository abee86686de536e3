#include "thrift/server.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"

enum {
    KEPT_BYTES_MAX = 65536, /* of arguments: longer ones are read as they are sent on */
    ESCAPE_BYTES = 3,       /* %XX */
};

/* --- The request ------------------------------------------------------------------------------ */

static bool of_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Between the names of a service and of its method. */
static bool separates(struct slice name, size_t at)
{
    return name.ptr[at] == ':' && at > 0 && at + 1 < name.len && of_word(name.ptr[at - 1]) &&
           of_word(name.ptr[at + 1]);
}

/* "/method" or "/Service/method"; what is unusual in a name is escaped. */
static struct slice path_of(struct arena *arena, struct slice name)
{
    static const char digits[] = "0123456789ABCDEF";
    char *path = arena_alloc(arena, 1 + name.len * ESCAPE_BYTES);
    size_t len = 0;
    if (!path)
        return slice_of(NULL, 0);
    path[len++] = '/';
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (of_word(c) || c == '.' || c == '-' || c == '$' || separates(name, i)) {
            path[len++] = (char)(c == ':' ? '/' : c);
            continue;
        }
        path[len++] = '%';
        path[len++] = digits[(unsigned char)c >> 4];
        path[len++] = digits[(unsigned char)c & 15];
    }
    return slice_of(path, len);
}

static int read_args(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    const struct thrift_call *call = body->source;
    struct thrift_input *input = &call->connection->input;
    struct http_server *server = call->connection->base->server;
    (void)max;
    if (call->connection->lost)
        return -ECONNRESET;
    if (deadline != DEADLINE_NOW && server->config.body_timeout_ms) {
        int64_t soon = io_now_ms(server->io) + server->config.body_timeout_ms;
        deadline = soon < deadline ? soon : deadline;
    }
    int result = thrift_input_read(input, out, deadline);
    body->ended = result == 1 && !input->left;
    return result;
}

static void release_args(struct body *body)
{
    (void)body; /* the call's end gives the connection back its input */
}

static const struct body_ops args_ops = {.read = read_args, .release = release_args};

static int init_body(struct thrift_call *call)
{
    const struct thrift_input *input = &call->connection->input;
    struct body *body = &call->exchange->request.body;
    call->streamed = !call->refusal && input->left > KEPT_BYTES_MAX;
    if (call->refusal || !input->left)
        return 0;
    if (call->streamed) {
        *body = (struct body){.ops = &args_ops, .source = call, .length = input->left};
        return 0;
    }
    call->args = arena_alloc(&call->exchange->arena, input->left);
    if (call->args)
        body_init_bytes(body, slice_of(call->args, input->left));
    return call->args ? 0 : -ENOMEM;
}

static int init_request(struct thrift_call *call)
{
    struct request *request = &call->exchange->request;
    const struct thrift_input *input = &call->connection->input;
    struct slice bytes = arena_copy(request->arena, thrift_input_head_bytes(input));
    if (!bytes.ptr)
        return -ENOMEM;
    request->thrift = thrift_message_read(request->arena, bytes, &input->limits, &request->headers);
    if (!request->thrift)
        return -ENOMEM;
    call->oneway = request->thrift->type == THRIFT_ONEWAY;
    request->method = METHOD_OTHER;
    request->method_name = call->oneway ? SLICE("ONEWAY") : SLICE("CALL");
    request->path = path_of(request->arena, request->thrift->method);
    request->keep_alive = true;
    return request->path.ptr ? init_body(call) : -ENOMEM;
}

struct thrift_call *thrift_call_create(struct thrift_connection *connection, const char *refusal)
{
    struct thrift_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->connection = connection;
    call->refusal = refusal;
    call->exchange = exchange_begin(connection->base->server->io);
    if (!call->exchange) {
        free(call);
        return NULL;
    }
    if (init_request(call) < 0) {
        exchange_end(call->exchange);
        free(call);
        return NULL;
    }
    list_push_back(&connection->calls, &call->link);
    connection->call_count++;
    return call;
}

/* --- Answering -------------------------------------------------------------------------------- */

static struct response *make_response(struct thrift_call *call)
{
    struct exchange *exchange = call->exchange;
    struct connection *base = call->connection->base;
    if (call->refusal)
        return thrift_create_exception(&exchange->request, THRIFT_PROTOCOL_ERROR,
                                       slice_from_cstr(call->refusal));
    counters_add(COUNTER_REQUESTS_THRIFT, 1);
    connection_begin_exchange(base, exchange, &exchange_codec_silent, call->coro);
    return connection_answer(exchange);
}

static int answer(struct thrift_call *call)
{
    struct response *response = make_response(call);
    if (!response)
        return coro_cancelled() ? -ECANCELED : -ENOMEM;
    int result = call->oneway ? 0 : thrift_send_reply(call, response);
    body_release(&response->body);
    return result;
}

/* Takes it off the connection, which may go on with the next frame, or end. */
static void destroy(struct thrift_call *call, bool failed)
{
    struct thrift_connection *connection = call->connection;
    exchange_end(call->exchange);
    list_remove(&call->link);
    connection->call_count--;
    if (connection->incoming == call)
        connection->incoming = NULL;
    free(call);
    thrift_connection_call_ended(connection, failed);
}

static void call_main(void *arg)
{
    struct thrift_call *call = arg;
    int result = answer(call);
    if (result < 0 && result != -ECANCELED)
        log_debug("the reply to request %llu broke off: %s",
                  (unsigned long long)call->exchange->request.id, strerror(-result));
    arena_run_defers(&call->exchange->arena); /* ends an upload, which reads the arguments too */
    call->coro = NULL;
    destroy(call, result < 0);
}

int thrift_call_receive(struct thrift_call *call)
{
    struct thrift_connection *connection = call->connection;
    struct thrift_input *input = &connection->input;
    if (call->coro)
        return 0; /* it reads by itself */
    if (call->args)
        call->args_len += thrift_input_take(input, call->args + call->args_len, input->left);
    if (input->left && !call->streamed && !call->refusal)
        return 0;
    if (!call->streamed)
        connection->incoming = NULL;
    call->coro = coro_start(call_main, call);
    return call->coro ? 1 : -ENOMEM;
}

void thrift_call_cancel(struct thrift_call *call)
{
    if (call->coro) {
        coro_cancel(call->coro);
        return;
    }
    struct thrift_connection *connection = call->connection;
    exchange_end(call->exchange);
    list_remove(&call->link);
    connection->call_count--;
    if (connection->incoming == call)
        connection->incoming = NULL;
    free(call);
}
