#include "http/h2_client_stream.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "http/h2_fields.h"
#include "io/wait.h"

#define BIT(id) (UINT64_C(1) << (id))

/* A request given up after so long without a byte from the origin casts doubt on the connection. */
enum { SILENCE_MS = 1000 };

static struct h2_client_stream *stream_of(const struct client_exchange *exchange)
{
    return container_of(exchange, struct h2_client_stream, exchange);
}

struct h2_client *h2_client_of(const struct client_exchange *exchange)
{
    return stream_of(exchange)->client;
}

/* --- Life ------------------------------------------------------------------------------------- */

struct client_exchange *h2_client_begin(struct h2_client *client)
{
    struct h2_client_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    timer_stop(&client->idle);
    stream->exchange.ops = &h2_client_ops;
    stream->exchange.reused = client->answered;
    stream->client = client;
    stream->held = true;
    list_push_back(&client->streams, &stream->link);
    client->stream_count++;
    return &stream->exchange;
}

static void destroy(struct h2_client_stream *stream)
{
    struct h2_client *client = stream->client;
    list_remove(&stream->link);
    free(stream);
    if (--client->stream_count)
        return;
    if (client->ended)
        h2_transport_close(&client->transport, client->transport.error != 0);
    else if (client->draining)
        h2_client_drain(client);
    else if (client->on_idle)
        client->on_idle(client);
}

static void reset(struct h2_client_stream *stream)
{
    struct h2_transport *transport = &stream->client->transport;
    if (!stream->open || transport->ending)
        return;
    if (nghttp2_submit_rst_stream(transport->session, NGHTTP2_FLAG_NONE, stream->id,
                                  NGHTTP2_CANCEL) != 0)
        h2_transport_end(transport, -ENOMEM);
    h2_transport_flush(transport);
}

/* Has nothing come from the origin since the request was sent, for long? The connection may be dead
 * and nobody has told us. */
static bool gone_silent(const struct h2_client_stream *stream)
{
    const struct stream *below = &stream->client->stream;
    return stream->id && below->bytes_in == stream->bytes_in_at_start &&
           io_now_ms(below->io) - stream->sent_ms >= SILENCE_MS;
}

/* Has the session not taken all of the request's body yet? */
static bool body_left(const struct h2_client_stream *stream)
{
    return stream->has_body && !stream->output.finished;
}

void h2_client_end_exchange(struct client_exchange *exchange, bool complete)
{
    struct h2_client_stream *stream = stream_of(exchange);
    if (gone_silent(stream))
        h2_client_doubt(stream->client);
    if (!exchange->response_ended || !complete || body_left(stream) || stream->connect)
        reset(stream);
    h2_input_release(&stream->input);
    h2_output_fail(&stream->output, -ECANCELED);
    stream->held = false;
    if (!stream->open)
        destroy(stream);
}

void h2_client_stream_wake(struct h2_client_stream *stream)
{
    if (stream->reader)
        coro_wake(stream->reader, 0);
}

static void end(struct h2_client_stream *stream, int error)
{
    stream->open = false;
    if (!stream->held) {
        destroy(stream);
        return;
    }
    h2_input_fail(&stream->input, error); /* nothing, if the response is complete */
    h2_output_fail(&stream->output, -ECONNRESET);
    h2_client_stream_wake(stream);
}

void h2_client_stream_lost(struct h2_client_stream *stream, int error)
{
    if (error == -EPROTO && !stream->why)
        stream->why = stream->client->why;
    if (stream->open)
        end(stream, error);
}

void h2_client_stream_closed(struct h2_client_stream *stream, uint32_t code)
{
    bool refused = stream->refused || code == NGHTTP2_REFUSED_STREAM;
    if (refused && !stream->head_count) {
        stream->client->refusing = true;
        end(stream, -ECONNREFUSED);
        return;
    }
    if (refused || stream->reset_by_origin) {
        end(stream, -ECONNRESET);
        return;
    }
    /* Closed by the session, for what its callbacks do not tell, such as a wrong Content-Length. */
    if (!stream->why)
        stream->why = "a message that contradicts itself";
    end(stream, -EPROTO);
}

/* --- Sending ---------------------------------------------------------------------------------- */

/* `protocol`: of an extended CONNECT (RFC 8441); its ptr is NULL for an ordinary request. */
static void add_pseudo_fields(struct h2_fields *fields, const struct client_head *head, bool secure,
                              struct slice protocol)
{
    const struct request *request = head->request;
    struct slice path = request->path.len ? request->path : SLICE("/");
    if (request->query.ptr)
        path = arena_printf(fields->arena, "%.*s?%.*s", (int)path.len, path.ptr,
                            (int)request->query.len, request->query.ptr);
    fields->failed |= !path.ptr;
    if (protocol.ptr) {
        h2_fields_add(fields, SLICE(":method"), SLICE("CONNECT"));
        h2_fields_add(fields, SLICE(":protocol"), protocol);
    } else {
        h2_fields_add(fields, SLICE(":method"), request->method_name);
    }
    h2_fields_add(fields, SLICE(":scheme"), secure ? SLICE("https") : SLICE("http"));
    h2_fields_add(fields, SLICE(":authority"), head->authority);
    h2_fields_add(fields, SLICE(":path"), path);
}

static void add_length(struct h2_fields *fields, const struct request *request)
{
    bool expects_body = request->method == METHOD_POST || request->method == METHOD_PUT ||
                        request->method == METHOD_PATCH;
    if (request->body.length < 0 || (request->body.length == 0 && !expects_body))
        return;
    struct slice length = arena_printf(fields->arena, "%lld", (long long)request->body.length);
    fields->failed |= !length.ptr;
    h2_fields_add(fields, SLICE("content-length"), length);
}

static void make_fields(struct h2_fields *fields, const struct client_head *head, bool secure,
                        struct slice protocol)
{
    const struct headers *headers = &head->request->headers;
    add_pseudo_fields(fields, head, secure, protocol);
    h2_fields_add_end_to_end(fields, headers,
                             head->skip | BIT(HEADER_TE) | BIT(HEADER_CONTENT_LENGTH));
    for (unsigned i = 0; i < head->extra_count; i++)
        h2_fields_add(fields, head->extra[i].name, head->extra[i].value);
    add_length(fields, head->request);
    if (headers_has_token(headers, HEADER_TE, SLICE("trailers")))
        h2_fields_add(fields, SLICE("te"), SLICE("trailers"));
}

/* The trailers of a request whose body was read to its end. */
static int set_trailers(struct h2_client_stream *stream)
{
    const struct request *request = stream->exchange.request;
    struct h2_fields fields = {.arena = request->arena};
    h2_fields_add_end_to_end(&fields, &request->trailers,
                             BIT(HEADER_TE) | BIT(HEADER_CONTENT_LENGTH));
    stream->output.trailers = fields.items;
    stream->output.trailer_count = fields.count;
    return fields.failed ? -ENOMEM : 0;
}

/* Hands the request to the session; what body there is follows by h2_output_send. */
static int submit(struct h2_client_stream *stream, const struct h2_fields *fields)
{
    struct h2_transport *transport = &stream->client->transport;
    const struct body *body = &stream->exchange.request->body;
    nghttp2_data_provider provider = h2_output_provider(&stream->output);
    stream->has_body = !body_is_empty(body) || stream->connect;
    int32_t id = nghttp2_submit_request(transport->session, NULL, fields->items, fields->count,
                                        stream->has_body ? &provider : NULL, stream);
    if (id < 0) {
        stream->refused = true; /* no number left, or a GOAWAY has come: nothing was sent */
        stream->client->draining = true;
        return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -ECONNREFUSED;
    }
    stream->id = stream->input.stream_id = stream->output.stream_id = id;
    stream->open = true;
    stream->bytes_in_at_start = stream->client->stream.bytes_in;
    stream->sent_ms = io_now_ms(stream->client->stream.io);
    h2_transport_flush(transport);
    return 0;
}

static int send_head(struct client_exchange *exchange, const struct client_head *head,
                     struct slice start, int64_t deadline)
{
    struct h2_client_stream *stream = stream_of(exchange);
    const struct request *request = head->request;
    (void)deadline; /* nothing is waited for */
    struct h2_transport *transport = &stream->client->transport;
    struct h2_fields fields = {.arena = request->arena};
    exchange->request = request;
    headers_init(&stream->trailers, request->arena);
    h2_input_init(&stream->input, transport, 0);
    h2_output_init(&stream->output, transport, 0);
    if (transport->ending) {
        h2_input_fail(&stream->input, -ECONNREFUSED);
        return -ECONNREFUSED;
    }
    struct slice protocol = h2_client_connect_protocol(stream, head);
    stream->connect = protocol.ptr != NULL;
    make_fields(&fields, head, stream->client->secure, protocol);
    int result = fields.failed ? -ENOMEM : submit(stream, &fields);
    if (result < 0)
        h2_input_fail(&stream->input, result);
    if (result < 0 || body_is_empty(&request->body))
        return result;
    if (request->body.ended && set_trailers(stream) < 0)
        return -ENOMEM;
    /* Not waited for: an origin may answer without taking any of it. */
    h2_output_begin(&stream->output, &start, start.len ? 1 : 0, request->body.ended);
    return 0;
}

static int send_body(struct client_exchange *exchange, const struct slice *pieces, unsigned count,
                     bool ended, int64_t deadline)
{
    struct h2_client_stream *stream = stream_of(exchange);
    if (ended && set_trailers(stream) < 0)
        return -ENOMEM;
    return h2_output_send(&stream->output, pieces, count, ended, exchange->send_timeout_ms,
                          deadline);
}

/* --- Receiving -------------------------------------------------------------------------------- */

static bool head_there(const struct h2_client_stream *stream)
{
    return stream->heads && stream->heads->complete;
}

static int await_head(struct h2_client_stream *stream, int64_t deadline)
{
    while (!head_there(stream) && !stream->input.error) {
        stream->reader = coro_self();
        int result = wait_wake(stream->client->stream.io, deadline);
        stream->reader = NULL;
        if (result < 0)
            return result;
    }
    return head_there(stream) ? 0 : stream->input.error;
}

static int read_head(struct client_exchange *exchange, struct response *response, const char **why,
                     int64_t deadline)
{
    struct h2_client_stream *stream = stream_of(exchange);
    int result = await_head(stream, deadline);
    if (result == -EPROTO)
        *why = stream->why;
    if (result < 0)
        return result;
    struct h2_client_head *head = stream->heads;
    stream->heads = head->next;
    stream->body_length = head->length;
    response->status = head->status;
    response->headers = head->headers;
    return stream->connect ? h2_client_accept_connect(stream, response) : 0;
}

/* The body was read to its end. */
static void finish(struct h2_client_stream *stream)
{
    stream->exchange.response_ended = true;
    stream->response->trailers = stream->trailers;
}

static void begin_body(struct client_exchange *exchange, struct response *response,
                       const struct body_ops *ops)
{
    struct h2_client_stream *stream = stream_of(exchange);
    struct h2_input *input = &stream->input;
    uint32_t at = 0;
    bool trailers = headers_next(&stream->trailers, &at) != NULL;
    bool none = http_response_bodyless(exchange->request->method, response->status);
    input->timeout_ms = exchange->read_timeout_ms;
    stream->response = response;
    body_init_empty(&response->body);
    if (none || (input->ended && !input->first && !trailers))
        exchange->response_ended = input->ended;
    else
        response->body = (struct body){.ops = ops, .length = stream->body_length};
}

static int read_body(struct client_exchange *exchange, struct body *body, struct slice *out,
                     unsigned max, int64_t deadline)
{
    struct h2_client_stream *stream = stream_of(exchange);
    int result = h2_input_read(&stream->input, body, out, max, deadline);
    if (body->ended)
        finish(stream);
    return result;
}

static void fail(struct client_exchange *exchange, int error)
{
    struct h2_client_stream *stream = stream_of(exchange);
    h2_input_fail(&stream->input, error);
    h2_client_stream_wake(stream);
}

static bool heard(const struct client_exchange *exchange)
{
    return stream_of(exchange)->head_count > 0;
}

const struct client_exchange_ops h2_client_ops = {
    .send_head = send_head,
    .send_body = send_body,
    .read_head = read_head,
    .begin_body = begin_body,
    .read_body = read_body,
    .fail = fail,
    .heard = heard,
    .detach = h2_client_detach,
};
