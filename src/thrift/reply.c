#include "thrift/server.h"

#include <errno.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "io/wait.h"
#include "thrift/gather.h"

enum { TEXT_MAX_BYTES = 4096 }; /* of an exception, made of a response's body */

/* --- Whose turn it is ------------------------------------------------------------------------- */

static bool any_order(const struct thrift_call *call)
{
    const struct thrift_message *message = call->exchange->request.thrift;
    return !call->connection->base->server->config.ordered_replies ||
           (message->transport != THRIFT_FRAMED && message->flags & THRIFT_HEADER_OUT_OF_ORDER);
}

static bool has_turn(const struct thrift_call *call)
{
    if (call->connection->sending)
        return false;
    if (any_order(call))
        return true;
    list_for_each(node, &call->connection->calls)
    {
        const struct thrift_call *before = container_of(node, struct thrift_call, link);
        if (before == call)
            return true;
        if (!before->oneway && !any_order(before))
            return false;
    }
    return true;
}

void thrift_wake_next(struct thrift_connection *connection)
{
    list_for_each(node, &connection->calls)
    {
        struct thrift_call *call = container_of(node, struct thrift_call, link);
        if (call->waiting && has_turn(call)) {
            coro_wake(call->coro, 0);
            return;
        }
    }
}

/* Those before it have their own deadlines. */
static int await_turn(struct thrift_call *call)
{
    int result = 0;
    while (result == 0 && !has_turn(call)) {
        call->waiting = true;
        result = wait_wake(call->exchange->io, DEADLINE_NEVER);
        call->waiting = false;
    }
    if (result == 0)
        call->connection->sending = call;
    return result;
}

/* --- What is sent ----------------------------------------------------------------------------- */

/* A response of HTTP's kind that tells of a failure: its text becomes the exception's. */
static struct response *exception_of(struct response *response)
{
    struct slice text = SLICE("");
    thrift_gather(&response->body, response->arena, TEXT_MAX_BYTES, &text);
    body_release(&response->body);
    text = slice_trim(text);
    while (text.len && (text.ptr[text.len - 1] == '\n' || text.ptr[text.len - 1] == '\r'))
        text.len--;
    if (!text.len)
        text = http_reason_phrase(response->status);
    struct response *exception =
        thrift_create_exception(response->request, thrift_exception_of(response->status), text);
    if (exception)
        exception->status = response->status;
    return exception;
}

static struct response *fail(struct response *response, const char *text)
{
    body_release(&response->body);
    return thrift_create_exception(response->request, THRIFT_INTERNAL_ERROR, slice_from_cstr(text));
}

/* One reply on its way. */
struct sending {
    struct thrift_call *call;
    struct response *response;
    struct slice head;
    struct slice first; /* of the body, read before the head goes */
};

/* As the client has asked: its transport and numbers. */
static int write_head(struct sending *sending)
{
    struct response *response = sending->response;
    const struct thrift_message *asked = response->request->thrift;
    struct thrift_message message = *response->thrift;
    message.transport = asked->transport;
    message.protocol = asked->protocol;
    message.seqid = asked->seqid;
    message.header_seqid = asked->header_seqid;
    return thrift_write_head(response->arena, &message, &response->headers,
                             (uint64_t)response->body.length, &sending->head);
}

/* Reads what is there of the body, or all of one whose length is not known. */
static int begin_body(struct sending *sending)
{
    struct body *body = &sending->response->body;
    struct slice bytes;
    if (body->length < 0) {
        int result = thrift_gather(body, sending->response->arena,
                                   sending->call->connection->input.limits.frame_max_bytes, &bytes);
        if (result < 0)
            return result;
        body_release(body);
        body_init_bytes(body, bytes);
    }
    int result = body_is_empty(body) ? 0 : body_read(body, &sending->first, 1, DEADLINE_NEVER);
    return result < 0 ? result : write_head(sending);
}

/* Makes a message of the response. What fails up to here is answered by an exception still. */
static int prepare(struct sending *sending)
{
    struct response *response = sending->response;
    if (!response->thrift && (response->status >= 300 || response->error != RESPONSE_OK))
        sending->response = exception_of(response);
    else if (!response->thrift)
        response->thrift = thrift_create_reply(response->request);
    if (!sending->response || !sending->response->thrift)
        return -ENOMEM;
    int result = begin_body(sending);
    if (result >= 0 || result == -ECANCELED)
        return result;
    sending->first = slice_of(NULL, 0);
    sending->response =
        fail(sending->response, result == -EMSGSIZE ? "the reply is too long"
                                                    : "the reply failed before its first byte");
    return sending->response ? begin_body(sending) : -ENOMEM;
}

static int send_pieces(struct sending *sending, struct slice head, struct slice piece)
{
    struct stream *stream = &sending->call->connection->base->stream;
    struct iovec iov[2] = {{(void *)head.ptr, head.len}, {(void *)piece.ptr, piece.len}};
    unsigned from = head.len ? 0 : 1;
    unsigned count = (piece.len ? 2 : 1) - from;
    sending->call->exchange->bytes_sent += head.len + piece.len;
    return stream_send(stream, iov + from, count, sending->call->exchange->total_deadline);
}

static int send_message(struct sending *sending)
{
    struct body *body = &sending->response->body;
    sending->call->exchange->sent_status = sending->response->status;
    int result = send_pieces(sending, sending->head, sending->first);
    while (result == 0 && !body->ended) {
        struct slice piece;
        int count = body_read(body, &piece, 1, sending->call->exchange->total_deadline);
        if (count <= 0)
            return count;
        result = send_pieces(sending, slice_of(NULL, 0), piece);
    }
    return result;
}

int thrift_send_reply(struct thrift_call *call, struct response *response)
{
    struct thrift_connection *connection = call->connection;
    struct sending sending = {.call = call, .response = response};
    int result = prepare(&sending);
    if (result == 0)
        result = await_turn(call);
    if (result < 0)
        return result;
    result = send_message(&sending);
    if (sending.response != response)
        body_release(&sending.response->body);
    connection->sending = NULL;
    return result;
}
