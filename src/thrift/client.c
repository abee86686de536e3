#include "thrift/client.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coro/coro.h"

enum {
    FAILURES_LOGGED_PER_S = 1,
    KEPT_BYTES_MAX = 1 << 20, /* of a reply's arguments: longer ones are read as they are sent on */
    REPLY_FIELDS_MAX = 256,
    OUTPUT_FIRST_BYTES = 4096,
    OUTPUT_KEPT_BYTES = 65536, /* a larger buffer is freed when it is empty */
};

/* --- Ending ----------------------------------------------------------------------------------- */

static void close_now(struct timer *timer)
{
    struct thrift_client *client = timer->owner;
    if (client->reset)
        stream_abort(&client->stream);
    else
        stream_close(&client->stream);
}

static void close_when_over(struct thrift_client *client)
{
    struct io *io = client->stream.io;
    if (!client->held_count && !client->stream.closing)
        timer_start(io_timers(io), &client->closing, io_now_ms(io));
}

static void wake(struct thrift_client_call *call)
{
    if (call->reader)
        coro_wake(call->reader, 0);
    if (call->sender)
        coro_wake(call->sender, 0);
}

static bool sent(const struct thrift_client_call *call)
{
    return call->end_at && call->end_at <= call->client->output.sent_bytes;
}

static void fail_call(struct thrift_client_call *call, int error)
{
    bool answered = call->complete || (call->oneway && sent(call));
    if (answered || call->error || (call->streamed && call->reply))
        return;
    bool untouched = !call->end_at || call->begin_at >= call->client->output.handed_bytes;
    call->error = untouched && error != -EPROTO ? -ECONNREFUSED : error;
    wake(call);
}

static void log_end(const struct thrift_client *client, const char *why)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char origin[ADDRESS_TEXT_MAX];
    if (!log_limit_pass(&limit, FAILURES_LOGGED_PER_S, &suppressed))
        return;
    address_format(&client->stream.remote, origin);
    log_warn("the connection to the Thrift origin at %s is closed: %s (%u more were not logged)",
             origin, why, suppressed);
}

static void fail_calls(struct thrift_client *client, int error)
{
    for (struct list *node = client->calls.next, *next; node != &client->calls; node = next) {
        struct thrift_client_call *call = container_of(node, struct thrift_client_call, link);
        next = node->next;
        if (call->held)
            fail_call(call, error);
        else
            thrift_client_forget(call);
    }
}

void thrift_client_end(struct thrift_client *client, int error, const char *why)
{
    if (!client->ended) {
        client->ended = client->draining = true;
        client->reset = client->call_count > 0;
        client->why = why;
        timer_stop(&client->idle);
        if (why)
            log_end(client, why);
        stream_fail(&client->stream, error); /* for who reads by himself */
        fail_calls(client, error);
    }
    close_when_over(client);
}

void thrift_client_forget(struct thrift_client_call *call)
{
    struct thrift_client *client = call->client;
    if (client->receiving == call)
        client->receiving = NULL;
    list_remove(&call->link);
    client->call_count--;
    free(call);
}

void thrift_client_close(struct thrift_client *client, bool reset)
{
    assert(!client->held_count);
    thrift_client_end(client, -ECONNRESET, NULL);
    client->reset |= reset;
    close_now(&client->closing);
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void write_done(struct stream_write *write, int result)
{
    struct thrift_client *client = write->owner;
    struct thrift_output *output = &client->output;
    output->busy = false;
    if (result < 0) {
        thrift_client_end(client, -ECONNRESET, NULL);
        return;
    }
    output->sent_bytes = output->handed_bytes;
    list_for_each(node, &client->calls)
    {
        struct thrift_client_call *call = container_of(node, struct thrift_client_call, link);
        if (call->oneway || call == client->uploading)
            wake(call);
    }
    thrift_client_flush(client);
}

void thrift_client_flush(struct thrift_client *client)
{
    struct thrift_output *output = &client->output;
    if (output->busy || client->ended || !output->filling_bytes)
        return;
    char *bytes = output->filling;
    size_t capacity = output->filling_capacity;
    output->filling = output->sending;
    output->filling_capacity = output->sending_capacity;
    output->sending = bytes;
    output->sending_capacity = capacity;
    if (output->filling_capacity > OUTPUT_KEPT_BYTES) {
        free(output->filling);
        output->filling = NULL;
        output->filling_capacity = 0;
    }
    output->iov = (struct iovec){bytes, output->filling_bytes};
    output->filling_bytes = 0;
    output->handed_bytes = output->queued_bytes;
    output->write =
        (struct stream_write){.iov = &output->iov, .count = 1, .done = write_done, .owner = client};
    output->busy = true;
    int result = stream_write_start(&client->stream, &output->write);
    if (result == 0)
        return;
    output->busy = false;
    if (result < 0)
        thrift_client_end(client, result, NULL);
}

int thrift_client_queue(struct thrift_client *client, struct slice bytes)
{
    struct thrift_output *output = &client->output;
    size_t needed = output->filling_bytes + bytes.len;
    if (needed > output->filling_capacity) {
        size_t capacity = needed < OUTPUT_FIRST_BYTES ? OUTPUT_FIRST_BYTES : needed * 2;
        char *grown = realloc(output->filling, capacity);
        if (!grown)
            return -ENOMEM;
        output->filling = grown;
        output->filling_capacity = capacity;
    }
    if (bytes.len)
        memcpy(output->filling + output->filling_bytes, bytes.ptr, bytes.len);
    output->filling_bytes = needed;
    output->queued_bytes += bytes.len;
    return 0;
}

/* --- Receiving -------------------------------------------------------------------------------- */

static struct thrift_client_call *find(const struct thrift_client *client, int32_t seqid)
{
    list_for_each(node, &client->calls)
    {
        struct thrift_client_call *call = container_of(node, struct thrift_client_call, link);
        if (call->awaited && call->seqid == seqid)
            return call;
    }
    return NULL;
}

/* Gives the call its reply's head, and room for the arguments. */
static int take_head(struct thrift_client_call *call)
{
    const struct thrift_input *input = &call->client->input;
    struct arena *arena = call->exchange.request->arena;
    struct slice bytes = arena_copy(arena, thrift_input_head_bytes(input));
    if (!bytes.ptr)
        return -ENOMEM;
    call->reply = thrift_message_read(arena, bytes, &input->limits, &call->fields);
    if (!call->reply)
        return -ENOMEM;
    call->streamed = input->left > KEPT_BYTES_MAX;
    if (call->streamed || !input->left)
        return 0;
    call->args = arena_alloc(arena, input->left);
    return call->args ? 0 : -ENOMEM;
}

/* Returns what is wrong with a reply, or NULL. */
static const char *judge(const struct thrift_client *client, const struct thrift_client_call *call)
{
    const struct thrift_head *head = &client->input.head;
    if (head->type != THRIFT_REPLY && head->type != THRIFT_EXCEPTION)
        return "it sent a call, where a reply was expected";
    if (!call)
        return "it answered with a sequence id that nobody waits for";
    if (call->held && head->protocol != call->exchange.request->thrift->protocol)
        return "it answered in another protocol than it was asked in";
    return NULL;
}

static void begin_reply(struct thrift_client *client)
{
    struct thrift_client_call *call = find(client, client->input.head.seqid);
    const char *why = judge(client, call);
    if (why) {
        thrift_client_end(client, -EPROTO, why);
        return;
    }
    assert(call);
    client->receiving = call;
    if (call->held && take_head(call) < 0)
        thrift_client_end(client, -ENOMEM, "out of memory");
    else if (call->streamed)
        wake(call);
}

/* All of a reply was received. */
static void end_reply(struct thrift_client *client)
{
    struct thrift_client_call *call = client->receiving;
    client->receiving = NULL;
    client->answered = true;
    call->awaited = false;
    call->complete = true;
    if (call->held)
        wake(call);
    else
        thrift_client_forget(call);
}

/* Goes on with a reply, or to the next. False: there is nothing to go on with now. */
static bool step(struct thrift_client *client)
{
    struct thrift_input *input = &client->input;
    struct thrift_client_call *call = client->receiving;
    const char *why;
    if (call) {
        if (call->streamed && call->held)
            return false; /* it reads by itself */
        if (call->held && call->args)
            call->args_len += thrift_input_take(input, call->args + call->args_len, input->left);
        else
            thrift_input_skip(input);
        if (input->left)
            return false;
        end_reply(client);
        return true;
    }
    if (input->complete)
        thrift_input_next(input);
    int result = thrift_input_head(input, &why);
    if (result == -EAGAIN)
        return false;
    if (result < 0)
        thrift_client_end(client, result == -ENOMEM ? result : -EPROTO, why);
    else
        begin_reply(client);
    return true;
}

void thrift_client_receive(struct thrift_client *client)
{
    struct stream *stream = &client->stream;
    while (!client->ended && step(client)) {
    }
    bool reading = client->receiving && client->receiving->streamed && client->receiving->held;
    if (!client->ended && !reading && stream->end != STREAM_OPEN && !stream->first)
        thrift_client_end(client, stream->end == STREAM_EOF ? -ECONNRESET : stream->end, NULL);
}

static void arrival(struct stream *stream)
{
    struct thrift_client *client = stream->owner;
    if (client->ended)
        return;
    thrift_client_receive(client);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static void closed(struct stream *stream)
{
    struct thrift_client *client = stream->owner;
    assert(!client->call_count);
    list_remove(&client->link);
    timer_stop(&client->idle);
    timer_stop(&client->closing);
    if (client->on_closed)
        client->on_closed(client);
    thrift_input_fini(&client->input);
    free(client->output.filling);
    free(client->output.sending);
    free(client);
}

int thrift_client_open(struct thrift_client **out, struct io *io, const struct address *address,
                       const struct client_tls *tls, const struct thrift_client_options *options,
                       int64_t deadline)
{
    struct thrift_client *client = calloc(1, sizeof(*client));
    struct thrift_limits limits = {
        .frame_max_bytes = options->frame_max_bytes ? options->frame_max_bytes : INT32_MAX,
        .head_max_bytes = options->head_max_bytes,
        .field_count_max = REPLY_FIELDS_MAX,
    };
    if (!client)
        return -ENOMEM;
    int result = stream_connect(&client->stream, io, address, deadline);
    if (result < 0) {
        free(client);
        return result;
    }
    client->stream.owner = client;
    client->stream.on_closed = closed;
    client->calls_max = options->calls_max ? options->calls_max : UINT32_MAX;
    list_init(&client->calls);
    list_init(&client->link);
    timer_init(&client->idle, NULL, client);
    timer_init(&client->closing, close_now, client);
    thrift_input_init(&client->input, &client->stream, &limits);
    result = client_tls_begin(&client->stream, tls, deadline);
    if (result < 0) {
        stream_abort(&client->stream);
        return result;
    }
    client->stream.send_stall_ms = options->send_stall_ms;
    client->stream.on_arrival = arrival;
    *out = client;
    return 0;
}

bool thrift_client_has_room(const struct thrift_client *client)
{
    return !client->draining && !client->uploading && client->stream.end == STREAM_OPEN &&
           client->call_count < client->calls_max;
}
