#include "http/h1_connection.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/idle.h"
#include "http/tunnel_note.h"
#include "io/wait.h"
#include "net/tunnel.h"
#include "net/tunnel_state.h"

enum {
    LINGER_QUIET_MS = 2000,  /* a closing connection is dropped when the client says nothing */
    LINGER_TOTAL_MS = 10000, /* and in any case */
    DISCARD_MAX_BYTES = 262144,
    DISCARD_MS = 2000,
};

static void arrival(struct connection *base);
static void drain(struct connection *base);
static void abort_connection(struct connection *base);
static void closed(struct connection *base);
static struct tunnel *moves(struct connection *base, struct tunnel_state *state);

static const struct exchange_codec h1_codec = {.send_interim = h1_send_interim};

static const struct protocol http_h1 = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
    .moves = moves,
};

/* --- Life of a connection ------------------------------------------------------------------ */

static struct h1_connection *of(struct connection *connection)
{
    return container_of(connection, struct h1_connection, base);
}

static void close_connection(struct h1_connection *connection, bool reset)
{
    timer_stop(&connection->base.idle);
    idle_end(&connection->base);
    h1_input_fini(&connection->input);
    if (reset)
        stream_abort(&connection->base.stream);
    else
        stream_close(&connection->base.stream);
}

static void idle_expired(struct timer *timer)
{
    close_connection(timer->owner, false);
}

static void connection_main(void *arg);

/* Something arrived and no coroutine is reading. */
static void arrival(struct connection *base)
{
    struct h1_connection *connection = of(base);
    struct stream *stream = &base->stream;
    if (connection->base.coro) {
        /* Inside an exchange: pipelined bytes wait, a FIN too (the client still gets its answer),
         * but a client that is gone has no use for one. */
        if (stream->end < 0)
            coro_cancel(connection->base.coro);
        return;
    }
    if (!stream->first) {
        close_connection(connection, false);
        return;
    }
    timer_stop(&connection->base.idle);
    idle_end(base);
    stream->watch_hangup = true;
    connection->base.coro = coro_start(connection_main, connection);
    if (!connection->base.coro) {
        log_no_memory("no memory for another coroutine: a connection is closed");
        close_connection(connection, true);
    }
}

static void go_idle(struct h1_connection *connection)
{
    struct http_server *server = connection->base.server;
    connection->base.stream.watch_hangup = false;
    uint32_t wait_ms =
        connection->requests ? server->config.idle_timeout_ms : server->config.head_timeout_ms;
    if (server->draining)
        wait_ms = CONNECTION_DRAIN_IDLE_MS;
    timer_start(io_timers(server->io), &connection->base.idle, io_now_ms(server->io) + wait_ms);
    idle_begin(&connection->base);
}

static void drain(struct connection *base)
{
    struct h1_connection *connection = of(base);
    if (timer_armed(&connection->base.idle))
        go_idle(connection);
}

static void abort_connection(struct connection *base)
{
    struct h1_connection *connection = of(base);
    if (base->stream.tunnel)
        tunnel_cancel(base->stream.tunnel);
    else if (connection->base.coro)
        coro_cancel(connection->base.coro);
    else if (!base->stream.closing)
        close_connection(connection, true);
}

static void closed(struct connection *base)
{
    (void)base; /* what it held was given back when the close began */
}

struct connection *h1_connection_create(void)
{
    struct h1_connection *connection = calloc(1, sizeof(*connection));
    return connection ? &connection->base : NULL;
}

void h1_connection_start(struct connection *base)
{
    struct h1_connection *connection = of(base);
    base->protocol = &http_h1;
    h1_input_init(&connection->input, &base->stream, true);
    timer_init(&base->idle, idle_expired, connection);
    go_idle(connection);
    if (base->stream.first || base->stream.end != STREAM_OPEN)
        arrival(base);
}

/* --- One request ----------------------------------------------------------------------------- */

static int request_body_read(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct h1_input *input = body->source;
    struct h1_connection *connection = container_of(input, struct h1_connection, input);
    struct request *request = &connection->exchange->request; /* a layer may have moved the body */
    if (request->expects_continue && deadline != DEADLINE_NOW && !connection->base.stream.first) {
        int result = h1_send_interim(request->exchange, 100, NULL);
        if (result < 0)
            return result;
    }
    return h1_input_read_body(input, body, out, max, deadline);
}

static void request_body_release(struct body *body)
{
    h1_input_release_held(body->source);
}

static const struct body_ops request_body_ops = {
    .read = request_body_read,
    .release = request_body_release,
};

static uint16_t refusal_status(int refusal)
{
    switch (refusal) {
    case H1_LINE_TOO_LONG:
        return 414;
    case H1_HEAD_TOO_LONG:
    case H1_TOO_MANY_HEADERS:
        return 431;
    case H1_BAD_VERSION:
        return 505;
    case H1_NO_MEMORY:
        return 503;
    default:
        return 400;
    }
}

static enum h1_verdict refuse(struct h1_connection *connection, uint16_t status, const char *why)
{
    connection_count_refusal(&connection->base, why);
    h1_send_refusal(connection, status, why);
    connection_note_refusal(&connection->base, connection->exchange, status, why);
    return H1_LINGER;
}

static struct tunnel *moves(struct connection *base, struct tunnel_state *state)
{
    struct h1_connection *connection = of(base);
    state->kind = TUNNEL_OF_HTTP;
    state->started_us = 0; /* who has to know has left a note */
    state->log_count = 0;
    for (const struct tunnel_note *note = connection->notes; note; note = note->next)
        if (!note->describe(note, state))
            return NULL;
    return base->stream.tunnel;
}

static void tunnel_done(const struct tunnel_result *result, void *owner)
{
    struct h1_connection *connection = owner;
    tunnel_notes_end(connection->notes, result);
    connection->notes = NULL;
}

/* The tunnel that the response has opened is none: its client is gone, or memory. */
static enum h1_verdict give_up_tunnel(struct h1_connection *connection, struct stream *peer,
                                      int error)
{
    bool client = connection->base.stream.end < 0;
    stream_abort(peer);
    tunnel_done(&(struct tunnel_result){.reason = client ? TUNNEL_CLIENT_FAILED : TUNNEL_CANCELLED,
                                        .error = client ? connection->base.stream.end : error},
                connection);
    return H1_ABORT;
}

/* Once the exchange has ended, which may have taken its time. From here on both streams are the
 * tunnel's: it closes them, which frees their connections. */
static enum h1_verdict start_tunnel(struct h1_connection *connection, struct stream *peer,
                                    int64_t deadline)
{
    struct tunnel_options options = {
        .idle_timeout_ms = connection->base.server->config.tunnel_idle_timeout_ms,
        .half_closed_timeout_ms = connection->base.server->config.half_closed_timeout_ms,
        .deadline = deadline,
    };
    if (coro_cancelled())
        return give_up_tunnel(connection, peer, -ECANCELED);
    if (!tunnel_start(&connection->base.stream, peer, &options, tunnel_done, connection)) {
        log_no_memory("no memory for a tunnel: its connections are closed");
        return give_up_tunnel(connection, peer, -ENOMEM);
    }
    h1_input_fini(&connection->input);
    connection_watch_client(&connection->base);
    return H1_TUNNEL;
}

struct tunnel *h1_connection_adopt(struct connection *base, struct stream *peer,
                                   const struct tunnel_state *state, struct tunnel_freeze *freeze,
                                   struct tunnel_note *notes)
{
    struct h1_connection *connection = of(base);
    base->protocol = &http_h1;
    timer_init(&base->idle, idle_expired, connection);
    struct tunnel *tunnel =
        tunnel_adopt(&base->stream, peer, state, freeze, tunnel_done, connection);
    connection->notes = tunnel ? notes : NULL;
    return tunnel;
}

static enum h1_verdict answer(struct h1_connection *connection, struct exchange *exchange)
{
    struct response *response = connection_answer(exchange);
    if (!response)
        return H1_ABORT;
    enum h1_verdict verdict = h1_send_response(connection, exchange, response);
    body_release(&response->body);
    if (verdict == H1_TUNNEL) {
        exchange->tunnel_peer = response->tunnel;
        response->tunnel = NULL;
    }
    return verdict;
}

static enum h1_verdict handle_head(struct h1_connection *connection, struct exchange *exchange,
                                   const struct h1_limits *limits, struct slice head)
{
    const char *why = "";
    struct h1_head parsed;
    const struct listener_config *config = &connection->base.server->config;
    int refusal =
        h1_parse_request(&exchange->request, head.ptr, (uint32_t)head.len, limits, &parsed, &why);
    if (refusal < 0)
        return refuse(connection, refusal_status(refusal), why);
    if (config->body_max_bytes && parsed.framing == H1_BODY_LENGTH &&
        parsed.content_length > config->body_max_bytes)
        return refuse(connection, 413, "the request body is longer than this server accepts");

    connection->requests++;
    if (parsed.has_connection_options)
        h1_remove_listed(&exchange->request.headers);
    exchange->request.keep_alive = parsed.keep_alive;
    connection->input.timeout_ms = config->body_timeout_ms;
    connection->input.max_bytes = config->body_max_bytes;
    h1_input_begin_body(&connection->input, &parsed, &exchange->request.body, &request_body_ops,
                        &exchange->request.trailers, &exchange->arena);
    counters_add(COUNTER_REQUESTS_H1, 1);
    connection_begin_exchange(&connection->base, exchange, &h1_codec, connection->base.coro);
    return answer(connection, exchange);
}

static enum h1_verdict read_and_answer(struct h1_connection *connection, struct exchange *exchange)
{
    struct http_server *server = connection->base.server;
    struct h1_limits limits = {
        .line_max_bytes = server->config.request_line_max_bytes,
        .head_max_bytes = server->config.head_max_bytes,
        .header_count_max = server->config.header_count_max,
    };
    struct slice head;
    int refusal = 0;
    const char *why = "";
    int64_t deadline = io_now_ms(server->io) + server->config.head_timeout_ms;
    int result = h1_input_read_head(&connection->input, &exchange->arena, &limits, &head, &refusal,
                                    &why, deadline);
    if (result == H1_INPUT_HEAD)
        return handle_head(connection, exchange, &limits, head);
    if (result == H1_INPUT_REFUSED)
        return refuse(connection, refusal_status(refusal), why);
    if (result == -ETIMEDOUT && h1_input_inside_head(&connection->input))
        return refuse(connection, 408, "the request head did not arrive in time");
    return result == H1_INPUT_END ? H1_LINGER : H1_ABORT;
}

/* Drops what the handler left of the request's body, so that the next head can be read. */
static enum h1_verdict skip_body(struct h1_connection *connection, enum h1_verdict verdict)
{
    if (verdict != H1_KEEP || connection->input.ended)
        return verdict;
    int64_t deadline = io_now_ms(connection->base.server->io) + DISCARD_MS;
    int result = h1_input_discard_body(&connection->input, DISCARD_MAX_BYTES, deadline);
    return result < 0 ? H1_LINGER : H1_KEEP;
}

static enum h1_verdict serve_one(struct h1_connection *connection)
{
    struct exchange *exchange = exchange_begin(connection->base.server->io);
    if (!exchange) {
        log_no_memory("no memory for another request: its connection is closed");
        return H1_ABORT;
    }
    connection->input.ended = true; /* until a head says that a body follows */
    connection->exchange = exchange;
    enum h1_verdict verdict = read_and_answer(connection, exchange);
    arena_run_defers(&exchange->arena); /* ends an upload, which reads the body too */
    verdict =
        skip_body(connection, verdict); /* trailers go to the exchange: it must be there still */
    int64_t deadline = exchange->total_deadline;
    struct stream *tunnel_peer = exchange->tunnel_peer;
    connection->notes = exchange->notes;
    exchange_end(exchange);
    connection->exchange = NULL;
    return verdict == H1_TUNNEL ? start_tunnel(connection, tunnel_peer, deadline) : verdict;
}

/* Half-closes, then drains for a while: closing with unread bytes would reset the connection and
 * could destroy the response on its way (RFC 9112 section 9.6). */
static void linger(struct h1_connection *connection)
{
    struct stream *stream = &connection->base.stream;
    stream_shutdown(stream);
    int64_t end_ms = io_now_ms(stream->io) + LINGER_TOTAL_MS;
    for (;;) {
        int64_t quiet_ms = io_now_ms(stream->io) + LINGER_QUIET_MS;
        if (stream_wait_readable(stream, quiet_ms < end_ms ? quiet_ms : end_ms) <= 0)
            return;
        io_buf_release(stream->io, stream_take(stream));
    }
}

/* The coroutine of a connection that has something to say: answers until nothing is queued. */
static void connection_main(void *arg)
{
    struct h1_connection *connection = arg;
    struct stream *stream = &connection->base.stream;
    enum h1_verdict verdict;
    do
        verdict = serve_one(connection);
    while (verdict == H1_KEEP && stream->first);

    if (verdict == H1_TUNNEL) {
        connection->base.coro = NULL;
        return; /* the tunnel owns the stream now and closes it */
    }
    if (verdict == H1_KEEP && stream->end == STREAM_OPEN) {
        connection->base.coro = NULL;
        go_idle(connection);
        return;
    }
    if (verdict == H1_LINGER)
        linger(connection);
    connection->base.coro = NULL;
    close_connection(connection, verdict == H1_ABORT);
}
