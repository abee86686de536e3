/*
 * Answers: framing, the head in one pass, and the body as it comes.
 *
 *   head ─┬─ first pieces of the body, if they are there ─▶ one send
 *         ├─ more pieces ─▶ a send each ─▶ last chunk and trailers with the last of them
 *         └─ or a long body as it came ─▶ through pipes
 */
#include "http/h1_connection.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/h1_write.h"
#include "net/stream_splice.h"

enum {
    HEAD_RESERVE_BYTES = 512,
    UNREAD_BODY_MAX_BYTES = 65536,       /* read and dropped to keep the connection */
    IOV_MAX_COUNT = BODY_SLICES_MAX + 4, /* the head, a chunk header, CRLF and the last chunk */
};

/* One response on its way. */
struct sending {
    struct h1_connection *connection;
    struct exchange *exchange;
    struct response *response;
    struct h1_out head; /* not sent yet while head.len > 0 */
    bool chunked;
    bool bodyless;
    bool keep;   /* the connection stays */
    bool copied; /* the body, or what is left of it, cannot be spliced */
    char chunk_header[H1_CHUNK_HEADER_MAX_BYTES];
};

static int send_bytes(struct sending *sending, struct iovec *iov, unsigned count)
{
    return stream_send(&sending->connection->base.stream, iov, count,
                       sending->exchange->total_deadline);
}

/* May the connection be kept although the request's body was not read to its end? */
static bool unread_body_is_small(const struct h1_connection *connection,
                                 const struct request *request)
{
    const struct h1_input *input = &connection->input;
    if (input->ended)
        return true;
    if (input->failed || request->expects_continue)
        return false;
    return input->framing != H1_BODY_LENGTH || input->left <= UNREAD_BODY_MAX_BYTES;
}

/* A client that has ended its side still gets the answers to what it had sent before. */
static bool more_may_come(const struct stream *stream)
{
    return stream->end == STREAM_OPEN || (stream->end == STREAM_EOF && stream->first);
}

static bool may_keep(const struct sending *sending)
{
    const struct h1_connection *connection = sending->connection;
    const struct http_server *server = connection->base.server;
    const struct request *request = &sending->exchange->request;
    uint32_t requests_max = server->config.requests_max;
    return request->keep_alive && !server->draining && more_may_come(&connection->base.stream) &&
           !(requests_max && connection->requests >= requests_max) &&
           unread_body_is_small(connection, request) &&
           !headers_has_token(&sending->response->headers, HEADER_CONNECTION, SLICE("close"));
}

static void write_length(struct h1_out *out, uint64_t length)
{
    h1_out_append(out, SLICE("Content-Length: "));
    h1_out_number(out, length);
    h1_out_append(out, SLICE("\r\n"));
}

/* RFC 9112 section 6: how the receiver will find the end of the body. */
static void write_framing(struct sending *sending)
{
    struct h1_out *out = &sending->head;
    struct response *response = sending->response;
    const struct request *request = &sending->exchange->request;
    if (sending->bodyless) {
        struct slice declared = headers_get_id(&response->headers, HEADER_CONTENT_LENGTH);
        bool head = sending->exchange->received_method == METHOD_HEAD;
        bool may_declare = head || response->status == 304;
        if (may_declare && declared.ptr)
            h1_out_field(out, SLICE("Content-Length"), declared);
        else if (head && response->body.length > 0)
            write_length(out, (uint64_t)response->body.length);
        return;
    }
    if (response->body.length >= 0) {
        write_length(out, (uint64_t)response->body.length);
    } else if (request->version >= HTTP_1_1) {
        sending->chunked = true;
        h1_out_append(out, SLICE("Transfer-Encoding: chunked\r\n"));
    } else {
        sending->keep = false;
    }
}

static void write_connection(struct sending *sending)
{
    struct h1_out *out = &sending->head;
    if (!sending->keep)
        h1_out_append(out, SLICE("Connection: close\r\n"));
    else if (sending->exchange->request.version == HTTP_1_0)
        h1_out_append(out, SLICE("Connection: keep-alive\r\n"));
}

static void write_upgrade(struct sending *sending)
{
    struct slice protocol = headers_get_id(&sending->response->headers, HEADER_UPGRADE);
    if (sending->response->status == 101 && protocol.ptr) {
        h1_out_append(&sending->head, SLICE("Connection: Upgrade\r\n"));
        h1_out_field(&sending->head, SLICE("Upgrade"), protocol);
    }
}

static void write_head(struct sending *sending)
{
    struct response *response = sending->response;
    struct h1_out *out = &sending->head;
    sending->exchange->sent_status = response->status;
    sending->exchange->request.expects_continue = false; /* no 100 behind the final head */
    h1_out_reserve(out, HEAD_RESERVE_BYTES);
    h1_out_status_line(out, response->status);
    bool options = headers_find_id(&response->headers, HEADER_CONNECTION, NULL) != NULL;
    h1_out_end_to_end_fields(out, &response->headers, options, 0);
    if (!headers_find_id(&response->headers, HEADER_DATE, NULL))
        h1_out_field(out, SLICE("Date"), http_date_now(io_now_ms(sending->exchange->io)));
    if (response->tunnel) {
        write_upgrade(sending);
    } else {
        write_framing(sending);
        write_connection(sending);
    }
    h1_out_append(out, SLICE("\r\n"));
}

static void put(struct iovec *iov, unsigned *count, struct slice bytes)
{
    if (bytes.len)
        iov[(*count)++] = (struct iovec){(void *)bytes.ptr, bytes.len};
}

static struct slice last_chunk(struct sending *sending)
{
    struct headers *trailers = &sending->response->trailers;
    uint32_t at = 0;
    if (!trailers->items || !headers_next(trailers, &at))
        return SLICE("0\r\n\r\n");
    struct h1_out out = {.arena = sending->response->arena};
    h1_out_append(&out, SLICE("0\r\n"));
    h1_out_end_to_end_fields(&out, trailers, false, UINT64_C(1) << HEADER_CONTENT_LENGTH);
    h1_out_append(&out, SLICE("\r\n"));
    return out.failed ? SLICE("0\r\n\r\n") : slice_of(out.data, out.len);
}

/* Sends the head if it has not gone yet, the pieces, and what ends the body. */
static int send_pieces(struct sending *sending, const struct slice *pieces, unsigned count)
{
    struct iovec iov[IOV_MAX_COUNT];
    unsigned used = 0;
    size_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += pieces[i].len;

    put(iov, &used, slice_of(sending->head.data, sending->head.len));
    sending->head.len = 0;
    if (sending->chunked && total)
        put(iov, &used,
            slice_of(sending->chunk_header, h1_chunk_header(sending->chunk_header, total)));
    for (unsigned i = 0; i < count; i++)
        put(iov, &used, pieces[i]);
    if (sending->chunked && total)
        put(iov, &used, SLICE("\r\n"));
    if (sending->chunked && (sending->response->body.ended || count == 0))
        put(iov, &used, last_chunk(sending));
    int result = used ? send_bytes(sending, iov, used) : 0;
    if (result == 0)
        sending->exchange->bytes_sent += total;
    return result;
}

static int send_head_alone(struct sending *sending)
{
    struct iovec iov = {sending->head.data, sending->head.len};
    sending->head.len = 0;
    return send_bytes(sending, &iov, 1);
}

/* Can the body's bytes pass as they are? */
static bool may_splice(const struct sending *sending)
{
    return !sending->copied && !sending->chunked && !sending->connection->base.stream.filter;
}

/* Passes on what the body gives through a pipe. Returns the number of bytes or a negative errno; 0:
 * the next ones are to be read. */
static int splice_pieces(struct sending *sending, bool *body_failed)
{
    int64_t deadline = sending->exchange->total_deadline;
    struct io_pipe *pipe;
    if (sending->head.len || !may_splice(sending))
        return 0;
    int count = body_splice(&sending->response->body, &pipe, deadline);
    if (count == -EOPNOTSUPP) {
        sending->copied = true;
        return 0;
    }
    if (count <= 0) {
        *body_failed = count < 0;
        return count;
    }
    int result = stream_splice_out(&sending->connection->base.stream, pipe, deadline);
    if (result < 0)
        return result;
    sending->exchange->bytes_sent += (uint64_t)count;
    return count;
}

/* Pulls the body and sends it. Returns 0 or a negative errno; *body_failed tells whose fault. */
static int send_body(struct sending *sending, bool *body_failed)
{
    struct body *body = &sending->response->body;
    for (;;) {
        struct slice pieces[BODY_SLICES_MAX];
        /* With the head still to go nothing is waited for: what is there goes with it. */
        int64_t deadline = sending->head.len ? DEADLINE_NOW : sending->exchange->total_deadline;
        int result = splice_pieces(sending, body_failed);
        if (result < 0 || (result > 0 && body->ended))
            return result < 0 ? result : 0;
        if (result > 0)
            continue;
        int count = body_read(body, pieces, BODY_SLICES_MAX, deadline);
        if (count == -ETIMEDOUT && sending->head.len) {
            result = send_head_alone(sending);
        } else if (count < 0) {
            *body_failed = true;
            return count;
        } else {
            result = send_pieces(sending, pieces, (unsigned)count);
            if (result == 0 && (count == 0 || body->ended))
                return 0;
        }
        if (result < 0)
            return result;
    }
}

/* A body that failed before anything was sent still allows for a proper answer. */
static bool replace_by_failure(struct sending *sending, int error)
{
    if (!sending->head.len || error == -ECANCELED)
        return false;
    struct request *request = &sending->exchange->request;
    bool layer = error == -EIO;
    struct response *failure = response_create_error(
        request, layer ? 500 : 502, layer ? RESPONSE_LAYER_FAILED : RESPONSE_RESET,
        SLICE("the response body failed before its first byte"));
    if (!failure)
        return false;
    body_release(&sending->response->body);
    sending->response = failure;
    sending->head = (struct h1_out){.arena = request->arena};
    sending->chunked = false;
    sending->bodyless = http_response_bodyless(sending->exchange->received_method, failure->status);
    write_head(sending);
    return !sending->head.failed;
}

static int send_all(struct sending *sending)
{
    if (sending->bodyless || sending->response->tunnel)
        return send_head_alone(sending);
    bool body_failed = false;
    int result = send_body(sending, &body_failed);
    if (result < 0 && body_failed && replace_by_failure(sending, result))
        result = sending->bodyless ? send_head_alone(sending) : send_body(sending, &body_failed);
    return result;
}

enum h1_verdict h1_send_response(struct h1_connection *connection, struct exchange *exchange,
                                 struct response *response)
{
    struct sending sending = {
        .connection = connection,
        .exchange = exchange,
        .response = response,
        .head = {.arena = &exchange->arena},
        .bodyless = http_response_bodyless(exchange->received_method, response->status),
    };
    sending.keep = may_keep(&sending);
    write_head(&sending);
    if (sending.head.failed)
        return H1_ABORT;
    int result = send_all(&sending);
    if (result < 0) {
        log_debug("response to request %llu broke off: %s",
                  (unsigned long long)exchange->request.id, strerror(-result));
        return H1_ABORT;
    }
    if (response->tunnel)
        return H1_TUNNEL;
    return sending.keep ? H1_KEEP : H1_LINGER;
}

int h1_send_interim(struct exchange *exchange, uint16_t status, const struct headers *headers)
{
    struct h1_connection *connection = exchange->connection;
    if (exchange->request.version < HTTP_1_1)
        return 0;
    if (status == 100)
        exchange->request.expects_continue = false;
    struct h1_out out = {.arena = &exchange->arena};
    h1_out_status_line(&out, status);
    if (headers) {
        bool options = headers_find_id(headers, HEADER_CONNECTION, NULL) != NULL;
        h1_out_end_to_end_fields(&out, headers, options, UINT64_C(1) << HEADER_CONTENT_LENGTH);
    }
    h1_out_append(&out, SLICE("\r\n"));
    if (out.failed)
        return -ENOMEM;
    struct iovec iov = {out.data, out.len};
    return stream_send(&connection->base.stream, &iov, 1, exchange->total_deadline);
}

void h1_send_refusal(struct h1_connection *connection, uint16_t status, const char *why)
{
    char text[512];
    struct slice reason = http_reason_phrase(status);
    struct slice date = http_date_now(io_now_ms(connection->base.stream.io));
    int len = snprintf(text, sizeof(text),
                       "HTTP/1.1 %u %.*s\r\nDate: %.*s\r\nContent-Type: text/plain\r\n"
                       "Content-Length: %zu\r\nConnection: close\r\n\r\n%s\n",
                       status, (int)reason.len, reason.ptr, (int)date.len, date.ptr,
                       strlen(why) + 1, why);
    if (len <= 0 || (size_t)len >= sizeof(text))
        return;
    size_t body_len = strlen(why) + 1;
    if (connection->exchange->request.method == METHOD_HEAD) {
        len -= (int)body_len;
        body_len = 0;
    }
    struct iovec iov = {text, (size_t)len};
    int64_t deadline =
        io_now_ms(connection->base.stream.io) + connection->base.server->config.send_timeout_ms;
    if (stream_send(&connection->base.stream, &iov, 1, deadline) == 0)
        connection->exchange->bytes_sent = body_len;
}
