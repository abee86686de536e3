#include "http/h1_client.h"

#include <errno.h>
#include <stdlib.h>

enum { LINE_MAX_BYTES = 8192 };

static void client_closed(struct stream *stream)
{
    struct h1_client *client = stream->owner;
    if (client->on_closed)
        client->on_closed(client);
    free((char *)client->identity.ptr);
    free(client);
}

int h1_client_open(struct h1_client **out, struct io *io, const struct address *address,
                   struct slice header, const struct client_tls *tls, int64_t deadline)
{
    struct h1_client *client = calloc(1, sizeof(*client));
    if (!client)
        return -ENOMEM;
    int result = stream_connect(&client->stream, io, address, deadline);
    if (result < 0) {
        free(client);
        return result;
    }
    client->exchange.ops = &h1_client_ops;
    client->stream.owner = client;
    client->stream.on_closed = client_closed;
    client->stream.piecewise = !tls;
    list_init(&client->link);
    timer_init(&client->idle, NULL, client);
    h1_input_init(&client->input, &client->stream, false);
    client->input.ended = true;
    result = client_tls_begin_behind(&client->stream, header, tls, deadline);
    if (result < 0)
        h1_client_close(client);
    else
        *out = client;
    return result;
}

bool h1_client_end_exchange(struct h1_client *client, bool complete)
{
    h1_input_release_held(&client->input); /* an idle connection holds no buffers */
    client->exchange.request = NULL;
    client->exchange.reused = true;
    return complete && client->head.keep_alive && client->input.ended && !client->input.failed &&
           stream_quiet(&client->stream);
}

void h1_client_close(struct h1_client *client)
{
    timer_stop(&client->idle);
    list_remove(&client->link);
    h1_input_fini(&client->input);
    if (client->input.ended)
        stream_close(&client->stream);
    else
        stream_abort(&client->stream);
}

/* --- Sending ---------------------------------------------------------------------------------- */

/* Is the body sent chunked? Otherwise its length is declared. */
static bool chunked(const struct request *request)
{
    return request->body.length < 0;
}

static void write_request_line(struct h1_out *out, const struct request *request)
{
    h1_out_append(out, request->method_name);
    h1_out_append(out, SLICE(" "));
    h1_out_append(out, request->path.len ? request->path : SLICE("/"));
    if (request->query.ptr) {
        h1_out_append(out, SLICE("?"));
        h1_out_append(out, request->query);
    }
    h1_out_append(out, SLICE(" HTTP/1.1\r\n"));
}

static void write_framing(struct h1_out *out, const struct request *request)
{
    if (chunked(request)) {
        h1_out_append(out, SLICE("Transfer-Encoding: chunked\r\n"));
        return;
    }
    bool expects_body = request->method == METHOD_POST || request->method == METHOD_PUT ||
                        request->method == METHOD_PATCH;
    if (request->body.length > 0 || expects_body) {
        h1_out_append(out, SLICE("Content-Length: "));
        h1_out_number(out, (uint64_t)request->body.length);
        h1_out_append(out, SLICE("\r\n"));
    }
}

static void write_connection(struct h1_out *out, const struct client_head *head)
{
    const struct headers *headers = &head->request->headers;
    if (head->upgrade) {
        h1_out_append(out, SLICE("Connection: Upgrade\r\n"));
        h1_out_field(out, SLICE("Upgrade"), headers_get_id(headers, HEADER_UPGRADE));
    }
    if (headers_has_token(headers, HEADER_TE, SLICE("trailers")))
        h1_out_append(out, SLICE("Connection: TE\r\nTE: trailers\r\n"));
}

void h1_client_write_head(struct h1_out *out, const struct client_head *head)
{
    write_request_line(out, head->request);
    h1_out_field(out, SLICE("Host"), head->authority);
    /* What Connection names was removed on arrival: here it would remove what layers have set. */
    h1_out_end_to_end_fields(out, &head->request->headers, false,
                             head->skip | UINT64_C(1) << HEADER_HOST);
    for (unsigned i = 0; i < head->extra_count; i++)
        h1_out_field(out, head->extra[i].name, head->extra[i].value);
    write_framing(out, head->request);
    write_connection(out, head);
    h1_out_append(out, SLICE("\r\n"));
}

static void append_last_chunk(struct h1_out *out, const struct headers *trailers)
{
    h1_out_append(out, SLICE("0\r\n"));
    h1_out_end_to_end_fields(out, trailers, false, 0);
    h1_out_append(out, SLICE("\r\n"));
}

static void append_start(struct h1_out *out, const struct request *request, struct slice start)
{
    if (!chunked(request)) {
        h1_out_append(out, start);
        return;
    }
    if (start.len) {
        char header[H1_CHUNK_HEADER_MAX_BYTES];
        h1_out_append(out, slice_of(header, h1_chunk_header(header, start.len)));
        h1_out_append(out, start);
        h1_out_append(out, SLICE("\r\n"));
    }
    if (request->body.ended)
        append_last_chunk(out, &request->trailers);
}

static int send_head(struct client_exchange *exchange, const struct client_head *head,
                     struct slice start, int64_t deadline)
{
    struct h1_client *client = h1_client_of(exchange);
    struct h1_out out = {.arena = head->request->arena};
    h1_out_reserve(&out, 512 + start.len);
    h1_client_write_head(&out, head);
    append_start(&out, head->request, start);
    if (out.failed)
        return -ENOMEM;
    /* From here on, until the response has been read, the connection is fit for nothing else. */
    client->head.keep_alive = false;
    client->input.ended = exchange->response_ended = false;
    client->input.failed = 0;
    client->stream.send_stall_ms = exchange->send_timeout_ms;
    exchange->request = head->request;
    struct iovec iov = {out.data, out.len};
    return stream_send(&client->stream, &iov, 1, deadline);
}

static void put(struct iovec *iov, unsigned *count, struct slice bytes)
{
    if (bytes.len)
        iov[(*count)++] = (struct iovec){(void *)bytes.ptr, bytes.len};
}

static struct slice last_chunk(const struct request *request)
{
    uint32_t at = 0;
    if (!headers_next(&request->trailers, &at))
        return SLICE("0\r\n\r\n");
    struct h1_out out = {.arena = request->arena};
    append_last_chunk(&out, &request->trailers);
    return out.failed ? SLICE("0\r\n\r\n") : slice_of(out.data, out.len);
}

static int send_body(struct client_exchange *exchange, const struct slice *pieces, unsigned count,
                     bool ended, int64_t deadline)
{
    struct iovec iov[BODY_SLICES_MAX + 3]; /* chunk header, CRLF, last chunk */
    char header[H1_CHUNK_HEADER_MAX_BYTES];
    bool in_chunks = chunked(exchange->request);
    unsigned used = 0;
    size_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += pieces[i].len;
    if (in_chunks && total)
        put(iov, &used, slice_of(header, h1_chunk_header(header, total)));
    for (unsigned i = 0; i < count; i++)
        put(iov, &used, pieces[i]);
    if (in_chunks && total)
        put(iov, &used, SLICE("\r\n"));
    if (in_chunks && ended)
        put(iov, &used, last_chunk(exchange->request));
    return used ? stream_send(&h1_client_of(exchange)->stream, iov, used, deadline) : 0;
}

/* --- Receiving -------------------------------------------------------------------------------- */

static int read_head(struct client_exchange *exchange, struct response *response, const char **why,
                     int64_t deadline)
{
    struct h1_client *client = h1_client_of(exchange);
    struct h1_limits limits = {
        .line_max_bytes = LINE_MAX_BYTES,
        .head_max_bytes = exchange->head_max_bytes,
        .header_count_max = CLIENT_RESPONSE_FIELDS_MAX,
    };
    struct slice head;
    int refusal = 0;
    int result = h1_input_read_head(&client->input, response->arena, &limits, &head, &refusal, why,
                                    deadline);
    if (result == H1_INPUT_REFUSED)
        return -EPROTO;
    if (result == H1_INPUT_END)
        return -ECONNRESET;
    if (result < 0)
        return result;
    refusal = h1_parse_response(response, response->request->method, head.ptr, (uint32_t)head.len,
                                &limits, &client->head, why);
    if (refusal < 0)
        return refusal == H1_NO_MEMORY ? -ENOMEM : -EPROTO;
    return 0;
}

static void begin_body(struct client_exchange *exchange, struct response *response,
                       const struct body_ops *ops)
{
    struct h1_client *client = h1_client_of(exchange);
    client->input.timeout_ms = exchange->read_timeout_ms;
    client->input.max_bytes = 0;
    h1_input_begin_body(&client->input, &client->head, &response->body, ops, &response->trailers,
                        response->arena);
    exchange->response_ended = client->input.ended;
}

static int read_body(struct client_exchange *exchange, struct body *body, struct slice *out,
                     unsigned max, int64_t deadline)
{
    struct h1_client *client = h1_client_of(exchange);
    int result = h1_input_read_body(&client->input, body, out, max, deadline);
    exchange->response_ended = client->input.ended;
    return result;
}

static int splice_body(struct client_exchange *exchange, struct body *body, struct io_pipe **pipe,
                       int64_t deadline)
{
    struct h1_client *client = h1_client_of(exchange);
    int result = h1_input_splice_body(&client->input, body, pipe, deadline);
    exchange->response_ended = client->input.ended;
    return result;
}

static void fail(struct client_exchange *exchange, int error)
{
    stream_fail(&h1_client_of(exchange)->stream, error);
}

static bool heard(const struct client_exchange *exchange)
{
    const struct h1_client *client = h1_client_of(exchange);
    return client->stream.first || h1_input_inside_head(&client->input);
}

static struct stream *detach(struct client_exchange *exchange)
{
    struct h1_client *client = h1_client_of(exchange);
    h1_input_fini(&client->input);
    client->stream.piecewise = false;
    return &client->stream;
}

const struct client_exchange_ops h1_client_ops = {
    .send_head = send_head,
    .send_body = send_body,
    .read_head = read_head,
    .begin_body = begin_body,
    .read_body = read_body,
    .splice_body = splice_body,
    .fail = fail,
    .heard = heard,
    .detach = detach,
};
