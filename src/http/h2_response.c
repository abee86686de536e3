/*
 * Answers over HTTP/2: HEADERS, the body as it comes, trailers (RFC 9113 section 8.1).
 *
 *   head ─┬─ first pieces of the body, if they are there ─▶ handed to the session together
 *         └─ more pieces, each when the last were taken ─▶ END_STREAM, or trailers with it
 */
#include "http/h2_connection.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/h2_fields.h"
#include "http/h2_tunnel.h"

enum { LAST_WORDS_MS = 100 }; /* for an answer that begins when its exchange's time is over */

/* One response on its way. */
struct sending {
    struct h2_stream *stream;
    struct response *response;
    int64_t deadline;
    struct slice pieces[BODY_SLICES_MAX]; /* read before the head went */
    int count;                            /* of them; negative: none were asked for or there */
    bool bodyless;
    bool tunnel; /* what follows the head comes from h2_tunnel */
};

static struct slice decimal(struct arena *arena, uint64_t number)
{
    char digits[20];
    unsigned at = sizeof(digits);
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    return arena_copy(arena, slice_of(digits + at, sizeof(digits) - at));
}

/* What the receiver is told of the body's length beforehand. */
static void add_length(struct h2_fields *fields, const struct sending *sending)
{
    const struct response *response = sending->response;
    bool head = sending->stream->exchange->received_method == METHOD_HEAD;
    struct slice declared = headers_get_id(&response->headers, HEADER_CONTENT_LENGTH);
    if (sending->tunnel)
        return;
    if (sending->bodyless) {
        if ((head || response->status == 304) && declared.ptr)
            h2_fields_add(fields, SLICE("content-length"), declared);
        else if (head && response->body.length > 0)
            h2_fields_add(fields, SLICE("content-length"),
                          decimal(fields->arena, (uint64_t)response->body.length));
    } else if (response->body.length >= 0) {
        h2_fields_add(fields, SLICE("content-length"),
                      decimal(fields->arena, (uint64_t)response->body.length));
    }
}

static int submit_head(struct sending *sending)
{
    struct h2_stream *stream = sending->stream;
    struct response *response = sending->response;
    struct exchange *exchange = stream->exchange;
    struct h2_fields fields = {.arena = &exchange->arena};
    h2_fields_add(&fields, SLICE(":status"), decimal(&exchange->arena, response->status));
    h2_fields_add_end_to_end(&fields, &response->headers, UINT64_C(1) << HEADER_CONTENT_LENGTH);
    if (!headers_find_id(&response->headers, HEADER_DATE, NULL))
        h2_fields_add(&fields, SLICE("date"), http_date_now(io_now_ms(exchange->io)));
    add_length(&fields, sending);
    if (fields.failed)
        return -ENOMEM;
    exchange->sent_status = response->status;
    exchange->request.expects_continue = false; /* no 100 behind the final head */
    bool no_body = !sending->tunnel && (sending->bodyless || body_is_empty(&response->body));
    nghttp2_data_provider provider = h2_output_provider(&stream->output);
    stream->answered = true;
    int result = nghttp2_submit_response(stream->connection->transport.session, stream->id,
                                         fields.items, fields.count, no_body ? NULL : &provider);
    h2_transport_flush(&stream->connection->transport);
    return result == 0 ? no_body : -ENOMEM;
}

static void set_trailers(struct sending *sending)
{
    static const uint64_t no_trailer = UINT64_C(1) << HEADER_CONTENT_LENGTH;
    struct headers *trailers = &sending->response->trailers;
    struct h2_fields fields = {.arena = sending->response->arena};
    if (trailers->items)
        h2_fields_add_end_to_end(&fields, trailers, no_trailer);
    if (fields.failed)
        return;
    sending->stream->output.trailers = fields.items;
    sending->stream->output.trailer_count = fields.count;
}

static int send_pieces(struct sending *sending, const struct slice *pieces, unsigned count)
{
    struct h2_stream *stream = sending->stream;
    bool last = count == 0 || sending->response->body.ended;
    if (last)
        set_trailers(sending);
    int result =
        h2_output_send(&stream->output, pieces, count, last,
                       stream->connection->base->server->config.send_timeout_ms, sending->deadline);
    if (result < 0)
        return result;
    return last ? 1 : 0;
}

/* Pulls the body and hands it over until its end. Returns 0 or a negative errno. */
static int send_body(struct sending *sending)
{
    struct body *body = &sending->response->body;
    int result = 0;
    if (sending->count >= 0)
        result = send_pieces(sending, sending->pieces, (unsigned)sending->count);
    while (result == 0) {
        int count = body_read(body, sending->pieces, BODY_SLICES_MAX, sending->deadline);
        result = count < 0 ? count : send_pieces(sending, sending->pieces, (unsigned)count);
    }
    sending->stream->exchange->bytes_sent += sending->stream->output.taken;
    return result < 0 ? result : 0;
}

/* The answer that says that the time is over must not fail for the same reason. */
static int64_t deadline_of(const struct exchange *exchange)
{
    int64_t now_ms = io_now_ms(exchange->io);
    return exchange->total_deadline > now_ms ? exchange->total_deadline : now_ms + LAST_WORDS_MS;
}

/* A body that fails before anything was sent still allows for a proper answer. */
static struct response *replacement(struct request *request, int error)
{
    bool layer = error == -EIO;
    return response_create_error(request, layer ? 500 : 502,
                                 layer ? RESPONSE_LAYER_FAILED : RESPONSE_RESET,
                                 SLICE("the response body failed before its first byte"));
}

/* What is there of the body goes with the head. */
static int read_first(struct sending *sending)
{
    struct body *body = &sending->response->body;
    sending->count = -1;
    if (sending->bodyless || body_is_empty(body))
        return 0;
    int count = body_read(body, sending->pieces, BODY_SLICES_MAX, DEADLINE_NOW);
    sending->count = count;
    return count < 0 && count != -ETIMEDOUT ? count : 0;
}

static struct response *refuse_tunnel(struct response *response)
{
    log_warn("request %llu: a layer opened a tunnel (status %u) that the client has not asked for",
             (unsigned long long)response->request->id, response->status);
    return response_create_error(response->request, 502, RESPONSE_MALFORMED,
                                 SLICE("a tunnel that the client has not asked for"));
}

/* To a CONNECT any 2xx says that the tunnel is open (RFC 9113, 8.5; RFC 8441, 5), where to an
 * upgrade of HTTP/1 it says that it is not. */
static struct response *refuse_success(struct response *response)
{
    return response_create_error(response->request, 502, RESPONSE_MALFORMED,
                                 SLICE("the origin has not switched protocols"));
}

/* For those who tell of the exchange when it ends. */
static void note_tunnel(struct exchange *exchange, const struct tunnel_result *result)
{
    struct tunnel_result *kept = arena_alloc(&exchange->arena, sizeof(*kept));
    if (kept)
        *kept = *result;
    exchange->tunnel = kept;
}

static int run_tunnel(struct h2_stream *stream, struct stream *origin)
{
    const struct listener_config *config = &stream->connection->base->server->config;
    const struct h2_tunnel tunnel = {
        .input = &stream->input,
        .output = &stream->output,
        .other = origin,
        .idle_timeout_ms = config->tunnel_idle_timeout_ms,
        .half_closed_timeout_ms = config->half_closed_timeout_ms,
        .send_timeout_ms = config->send_timeout_ms,
        .deadline = stream->exchange->total_deadline,
    };
    struct tunnel_result result;
    stream->tunnel = true;
    connection_watch_client(stream->connection->base);
    exchange_becomes_tunnel(stream->exchange);
    stream->input.timeout_ms = 0;
    stream->input.max_bytes = 0;
    h2_tunnel_run(&tunnel, &result);
    if (result.reason == TUNNEL_CANCELLED && !stream->open) { /* by its client */
        result.reason = TUNNEL_CLIENT_FAILED;
        result.error = -ECONNRESET;
    }
    note_tunnel(stream->exchange, &result);
    return result.error;
}

/* The origin's consent, as HTTP/2 says it (RFC 8441, 5). */
static int open_tunnel(struct sending *sending)
{
    struct response *response = sending->response;
    struct stream *origin = response->tunnel;
    response->status = 200;
    headers_remove_id(&response->headers, HEADER_UPGRADE);
    headers_remove(&response->headers, SLICE("sec-websocket-accept"));
    sending->tunnel = true;
    int result = submit_head(sending);
    if (result < 0)
        return result; /* whoever opened it closes it */
    response->tunnel = NULL;
    return run_tunnel(sending->stream, origin);
}

int h2_send_response(struct h2_stream *stream, struct response *response)
{
    bool tunnel = response->tunnel || response->status == 101;
    if (tunnel && !(stream->wants_tunnel && response->tunnel))
        response = refuse_tunnel(response);
    else if (stream->wants_tunnel && !tunnel && response->status / 100 == 2)
        response = refuse_success(response);
    struct sending sending = {
        .stream = stream, .response = response, .deadline = deadline_of(stream->exchange)};
    if (!response)
        return -ENOMEM;
    if (response->tunnel)
        return open_tunnel(&sending);
    enum http_method method = stream->exchange->received_method;
    sending.bodyless = http_response_bodyless(method, response->status);
    int result = read_first(&sending);
    if (result < 0 && result != -ECANCELED) {
        body_release(&response->body);
        sending.response = replacement(&stream->exchange->request, result);
        if (!sending.response)
            return -ENOMEM;
        sending.bodyless = http_response_bodyless(method, sending.response->status);
        result = read_first(&sending);
    }
    if (result == 0)
        result = submit_head(&sending);
    return result == 0 ? send_body(&sending) : result < 0 ? result : 0;
}

int h2_send_refusal(struct h2_stream *stream)
{
    struct request *request = &stream->exchange->request;
    struct slice text = arena_printf(request->arena, "%s\n", stream->why);
    struct response *response = response_create_text(request, stream->refusal, text);
    return response ? h2_send_response(stream, response) : -ENOMEM;
}

int h2_send_interim(struct exchange *exchange, uint16_t status, const struct headers *headers)
{
    struct h2_stream *stream = exchange->connection;
    struct h2_transport *transport = &stream->connection->transport;
    if (!stream->open || transport->ending)
        return -ECONNRESET;
    if (status == 100)
        exchange->request.expects_continue = false;
    if (status == 101 || stream->answered)
        return 0;
    struct h2_fields fields = {.arena = &exchange->arena};
    h2_fields_add(&fields, SLICE(":status"), decimal(&exchange->arena, status));
    if (headers)
        h2_fields_add_end_to_end(&fields, headers, UINT64_C(1) << HEADER_CONTENT_LENGTH);
    if (fields.failed || nghttp2_submit_headers(transport->session, NGHTTP2_FLAG_NONE, stream->id,
                                                NULL, fields.items, fields.count, NULL) != 0)
        return -ENOMEM;
    h2_transport_flush(transport);
    return 0;
}
