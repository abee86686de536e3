/* One exchange on a connection to a Thrift origin. */
#include "thrift/client.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "io/wait.h"

static struct thrift_client_call *call_of(const struct client_exchange *exchange)
{
    return container_of(exchange, struct thrift_client_call, exchange);
}

struct thrift_client *thrift_client_of(const struct client_exchange *exchange)
{
    return call_of(exchange)->client;
}

/* --- Life ------------------------------------------------------------------------------------- */

struct client_exchange *thrift_client_begin(struct thrift_client *client)
{
    struct thrift_client_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    timer_stop(&client->idle);
    call->exchange.ops = &thrift_client_ops;
    call->exchange.reused = client->answered;
    call->client = client;
    call->held = true;
    list_push_back(&client->calls, &call->link);
    client->call_count++;
    client->held_count++;
    return &call->exchange;
}

/* Does the reply that was given up keep the connection from being of use? One that is not shared
 * would have the next call wait behind the origin's work for nobody; one from which nothing was
 * heard since may be dead. */
static bool connection_spoilt(const struct thrift_client_call *call)
{
    const struct thrift_client *client = call->client;
    return client->calls_max == 1 || client->stream.bytes_in == call->bytes_in_at_start;
}

void thrift_client_end_exchange(struct client_exchange *exchange, bool complete)
{
    struct thrift_client_call *call = call_of(exchange);
    struct thrift_client *client = call->client;
    call->held = false;
    client->held_count--;
    if (client->uploading == call)
        client->uploading = NULL;
    bool cut = call->end_at && !complete;
    if (call->awaited && !call->complete && connection_spoilt(call))
        client->draining = true;
    if (!call->awaited || call->complete || client->ended)
        thrift_client_forget(call);
    if (cut || client->ended || (client->draining && !client->held_count)) {
        thrift_client_end(client, -ECONNRESET, NULL);
        return;
    }
    if (!client->held_count && client->on_idle)
        client->on_idle(client);
    thrift_client_receive(client); /* what stood behind a reply that was read, or is not wanted */
}

/* --- Sending ---------------------------------------------------------------------------------- */

static bool in_use(const struct thrift_client *client, int32_t seqid)
{
    list_for_each(node, &client->calls)
    {
        const struct thrift_client_call *call = container_of(node, struct thrift_client_call, link);
        if (call->awaited && call->seqid == seqid)
            return true;
    }
    return false;
}

static int32_t next_seqid(struct thrift_client *client)
{
    do
        client->last_seqid = client->last_seqid == INT32_MAX ? 1 : client->last_seqid + 1;
    while (in_use(client, client->last_seqid));
    return client->last_seqid;
}

/* The head as the origin gets it, and what is there of the arguments. */
static int queue_call(struct thrift_client_call *call, const struct request *request,
                      struct slice start)
{
    struct thrift_client *client = call->client;
    struct thrift_message message = *request->thrift;
    struct slice bytes;
    message.seqid = message.header_seqid = call->seqid = next_seqid(client);
    int result = thrift_write_head(request->arena, &message, &request->headers,
                                   (uint64_t)request->body.length, &bytes);
    if (result < 0)
        return result;
    call->begin_at = client->output.queued_bytes;
    result = thrift_client_queue(client, bytes);
    if (result == 0)
        result = thrift_client_queue(client, start);
    call->end_at = client->output.queued_bytes;
    if (result < 0) /* half a call: nothing can follow */
        thrift_client_end(client, result, NULL);
    return result;
}

static int send_head(struct client_exchange *exchange, const struct client_head *head,
                     struct slice start, int64_t deadline)
{
    struct thrift_client_call *call = call_of(exchange);
    struct thrift_client *client = call->client;
    const struct request *request = head->request;
    (void)deadline; /* nothing is waited for */
    exchange->request = request;
    headers_init(&call->fields, request->arena);
    call->oneway = request->thrift->type == THRIFT_ONEWAY;
    if (client->ended || client->uploading)
        call->error = -ECONNREFUSED;
    if (call->error)
        return call->error;
    int result = queue_call(call, request, start);
    if (result < 0) {
        call->error = result;
        return result;
    }
    call->awaited = !call->oneway;
    call->bytes_in_at_start = client->stream.bytes_in;
    if (!request->body.ended && !body_is_empty(&request->body))
        client->uploading = call;
    thrift_client_flush(client);
    return 0;
}

/* Waits until all that was gathered is sent, so that a coroutine may send by itself. */
static int await_output(struct thrift_client_call *call, int64_t deadline)
{
    const struct thrift_output *output = &call->client->output;
    while (output->busy || output->filling_bytes) {
        if (call->client->ended)
            return -ECONNRESET;
        call->sender = coro_self();
        int result = wait_wake(call->client->stream.io, deadline);
        call->sender = NULL;
        if (result < 0)
            return result;
    }
    return call->client->ended ? -ECONNRESET : 0;
}

static int send_body(struct client_exchange *exchange, const struct slice *pieces, unsigned count,
                     bool ended, int64_t deadline)
{
    struct thrift_client_call *call = call_of(exchange);
    struct thrift_output *output = &call->client->output;
    struct iovec iov[BODY_SLICES_MAX];
    size_t bytes = 0;
    int result = await_output(call, deadline);
    if (result < 0)
        return result;
    for (unsigned i = 0; i < count; i++) {
        iov[i] = (struct iovec){(void *)pieces[i].ptr, pieces[i].len};
        bytes += pieces[i].len;
    }
    if (count)
        result = stream_send(&call->client->stream, iov, count, deadline);
    output->queued_bytes += bytes;
    output->handed_bytes = output->sent_bytes = output->queued_bytes;
    call->end_at = output->queued_bytes;
    if (result < 0 || !ended)
        return result;
    call->client->uploading = NULL;
    if (call->reader) /* a oneway call is over now */
        coro_wake(call->reader, 0);
    return 0;
}

/* --- Receiving -------------------------------------------------------------------------------- */

static bool ready(const struct thrift_client_call *call)
{
    if (call->oneway)
        return call->end_at <= call->client->output.sent_bytes && call->client->uploading != call;
    return call->complete || (call->streamed && call->reply);
}

static int read_head(struct client_exchange *exchange, struct response *response, const char **why,
                     int64_t deadline)
{
    struct thrift_client_call *call = call_of(exchange);
    while (!call->error && !ready(call)) {
        call->reader = coro_self();
        int result = wait_wake(call->client->stream.io, deadline);
        call->reader = NULL;
        if (result < 0)
            return result;
    }
    if (call->error) {
        *why = call->client->why ? call->client->why : "";
        return call->error;
    }
    response->status = 200;
    if (call->oneway) {
        exchange->response_ended = true;
        return 0;
    }
    response->status = call->reply->type == THRIFT_EXCEPTION ? 500 : 200;
    response->thrift = call->reply;
    response->headers = call->fields;
    return 0;
}

static void begin_body(struct client_exchange *exchange, struct response *response,
                       const struct body_ops *ops)
{
    const struct thrift_client_call *call = call_of(exchange);
    exchange->response_ended = !call->streamed;
    if (call->oneway)
        body_init_empty(&response->body);
    else if (call->streamed)
        response->body = (struct body){.ops = ops, .length = call->client->input.left};
    else
        body_init_bytes(&response->body, slice_of(call->args, call->args_len));
}

static int read_body(struct client_exchange *exchange, struct body *body, struct slice *out,
                     unsigned max, int64_t deadline)
{
    struct thrift_client_call *call = call_of(exchange);
    struct thrift_input *input = &call->client->input;
    (void)max;
    if (deadline != DEADLINE_NOW && exchange->read_timeout_ms) {
        int64_t soon = io_now_ms(call->client->stream.io) + exchange->read_timeout_ms;
        deadline = soon < deadline ? soon : deadline;
    }
    int result = thrift_input_read(input, out, deadline);
    if (result == 1 && !input->left) {
        body->ended = exchange->response_ended = true;
        call->complete = true;
        call->awaited = false;
        call->client->answered = true;
    }
    return result;
}

static void fail(struct client_exchange *exchange, int error)
{
    struct thrift_client_call *call = call_of(exchange);
    call->error = error;
    if (call->reader)
        coro_wake(call->reader, 0);
}

static bool heard(const struct client_exchange *exchange)
{
    return call_of(exchange)->reply;
}

/* Thrift has no tunnels. */
static struct stream *detach(struct client_exchange *exchange)
{
    thrift_client_end_exchange(exchange, false);
    return NULL;
}

const struct client_exchange_ops thrift_client_ops = {
    .send_head = send_head,
    .send_body = send_body,
    .read_head = read_head,
    .begin_body = begin_body,
    .read_body = read_body,
    .fail = fail,
    .heard = heard,
    .detach = detach,
};
