/*
 * The life of a client's connection of Thrift: takes frames while there is room for calls, and ends
 * when nothing more will be taken and all is answered.
 *
 *   start ──▶ open ──(FIN, drain, malformed: last)──▶ calls end ──▶ lingering ──▶ closed
 *               └──(reset, a reply that broke off: lost)──▶ calls end ──▶ reset
 */
#include "thrift/server.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/idle.h"

enum { LINGER_MS = 1000 };

static void arrival(struct connection *base);
static void drain(struct connection *base);
static void abort_connection(struct connection *base);
static void closed(struct connection *base);

static const struct protocol thrift = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
};

static void start_timer(struct thrift_connection *connection, struct timer *timer, uint32_t ms)
{
    struct io *io = connection->base->server->io;
    timer_start(io_timers(io), timer, io_now_ms(io) + ms);
}

/* --- The end ---------------------------------------------------------------------------------- */

static void drop_arrivals(struct thrift_connection *connection)
{
    struct stream *stream = &connection->base->stream;
    while (stream->first)
        io_buf_release(stream->io, stream_take(stream));
    if (stream->end != STREAM_OPEN)
        stream_close(stream);
}

/* Closing with unread bytes would reset the connection and could destroy the last reply on its way.
 */
static void finish(struct thrift_connection *connection)
{
    struct stream *stream = &connection->base->stream;
    timer_stop(&connection->drain);
    idle_end(connection->base);
    if (stream->end != STREAM_OPEN) {
        stream_close(stream);
        return;
    }
    connection->lingering = true;
    start_timer(connection, &connection->base->idle, LINGER_MS);
    stream_shutdown(stream);
    drop_arrivals(connection);
}

/* The client cannot be given what it waits for: all its calls end. */
static void lose(struct thrift_connection *connection)
{
    if (connection->lost)
        return;
    connection->lost = true;
    timer_stop(&connection->base->idle);
    idle_end(connection->base);
    for (struct list *node = connection->calls.next, *next; node != &connection->calls;
         node = next) {
        next = node->next;
        thrift_call_cancel(container_of(node, struct thrift_call, link));
    }
}

/* --- Receiving -------------------------------------------------------------------------------- */

/* A frame's head has come, or what cannot be one. */
static void begin_call(struct thrift_connection *connection, int result, const char *why)
{
    const struct listener_config *config = &connection->base->server->config;
    enum thrift_type type = connection->input.head.type;
    if (result == 0 && type != THRIFT_CALL && type != THRIFT_ONEWAY) {
        why = "a client sends no replies";
        result = -EPROTO;
    }
    connection->requests++;
    if (result < 0 || (config->requests_max && connection->requests >= config->requests_max))
        connection->last = true;
    if (result < 0)
        connection_count_refusal(connection->base, why);
    if (result < 0 && !(result == -EMSGSIZE && type == THRIFT_CALL))
        return;
    connection->incoming = thrift_call_create(connection, result < 0 ? why : NULL);
    if (!connection->incoming) {
        log_no_memory("no memory for another call: a Thrift connection is closed");
        lose(connection);
    }
}

/* Goes on with a frame, or to the next. False: there is nothing to go on with now. */
static bool step(struct thrift_connection *connection)
{
    const struct http_server *server = connection->base->server;
    struct thrift_input *input = &connection->input;
    const char *why;
    if (connection->incoming) {
        int result = thrift_call_receive(connection->incoming);
        if (result < 0)
            lose(connection);
        return result > 0;
    }
    /* The listener may be another protocol's since a reload. */
    if (server->config.start != thrift_connection_start)
        connection->last = true;
    uint32_t calls_max = server->config.calls_max;
    if (connection->last || (calls_max && connection->call_count >= calls_max))
        return false;
    if (input->complete) {
        if (!thrift_input_skip(input))
            return false;
        thrift_input_next(input);
    }
    int result = thrift_input_head(input, &why);
    if (result != -EAGAIN)
        begin_call(connection, result, why);
    return result != -EAGAIN;
}

/* A frame that will never be complete. */
static void drop_incoming(struct thrift_connection *connection)
{
    if (connection->incoming && !connection->incoming->coro)
        thrift_call_cancel(connection->incoming);
}

/* What the connection waits for, if it is not for us. */
static void update_timer(struct thrift_connection *connection)
{
    const struct listener_config *config = &connection->base->server->config;
    struct timer *timer = &connection->base->idle;
    enum thrift_waiting waiting = THRIFT_WAITING_NOTHING;
    uint32_t ms = 0;
    if (connection->incoming && !connection->incoming->coro) {
        waiting = THRIFT_WAITING_ARGUMENTS;
        ms = config->body_timeout_ms;
    } else if (thrift_input_inside(&connection->input) && !connection->input.complete) {
        waiting = THRIFT_WAITING_HEAD;
        ms = config->head_timeout_ms;
    } else if (!connection->call_count) {
        waiting = THRIFT_WAITING_CALL;
        ms = connection->requests ? config->idle_timeout_ms : config->head_timeout_ms;
    }
    /* Arguments only have to go on coming. */
    if (waiting == connection->waiting && waiting != THRIFT_WAITING_ARGUMENTS)
        return;
    connection->waiting = waiting;
    if (waiting == THRIFT_WAITING_CALL)
        idle_begin(connection->base);
    else
        idle_end(connection->base);
    if (waiting == THRIFT_WAITING_NOTHING)
        timer_stop(timer);
    else
        start_timer(connection, timer, ms);
}

/* Does what can be done with what is there. May free the connection. */
static void go_on(struct thrift_connection *connection)
{
    struct stream *stream = &connection->base->stream;
    if (stream->end < 0)
        lose(connection);
    while (!connection->lost && step(connection)) {
    }
    bool ended = stream->end != STREAM_OPEN && !stream->first;
    if (ended && !connection->lost)
        drop_incoming(connection);
    bool over = connection->lost || connection->last || ended;
    if (connection->call_count || !over)
        update_timer(connection);
    else if (connection->lost)
        stream_abort(stream);
    else
        finish(connection);
}

void thrift_connection_call_ended(struct thrift_connection *connection, bool failed)
{
    if (failed)
        lose(connection);
    else if (!connection->lost)
        thrift_wake_next(connection);
    go_on(connection);
}

/* --- What the server asks for ----------------------------------------------------------------- */

static void arrival(struct connection *base)
{
    struct thrift_connection *connection = base->state;
    if (base->stream.closing)
        return;
    if (connection->lingering)
        drop_arrivals(connection);
    else
        go_on(connection);
}

static void waited_long(struct timer *timer)
{
    struct thrift_connection *connection = timer->owner;
    connection->waiting = THRIFT_WAITING_NOTHING;
    if (connection->lingering) {
        stream_close(&connection->base->stream);
        return;
    }
    drop_incoming(connection);
    connection->last = true;
    go_on(connection);
}

static void drain_due(struct timer *timer)
{
    struct thrift_connection *connection = timer->owner;
    connection->last = true;
    go_on(connection);
}

/* Thrift has no goodbye: what comes within a moment is still answered, then the client sees that
 * the connection ends. */
static void drain(struct connection *base)
{
    struct thrift_connection *connection = base->state;
    if (connection && !connection->last && !timer_armed(&connection->drain))
        start_timer(connection, &connection->drain, CONNECTION_DRAIN_IDLE_MS);
}

static void abort_connection(struct connection *base)
{
    struct thrift_connection *connection = base->state;
    if (!connection || base->stream.closing)
        return;
    lose(connection);
    if (!connection->call_count)
        stream_abort(&base->stream);
}

static void closed(struct connection *base)
{
    struct thrift_connection *connection = base->state;
    if (!connection)
        return;
    timer_stop(&base->idle);
    timer_stop(&connection->drain);
    thrift_input_fini(&connection->input);
    free(connection);
    base->state = NULL;
}

/* --- The beginning ---------------------------------------------------------------------------- */

static void begin(struct connection *base, struct thrift_connection *connection)
{
    const struct listener_config *config = &base->server->config;
    struct thrift_limits limits = {
        .frame_max_bytes = config->frame_max_bytes ? config->frame_max_bytes : INT32_MAX,
        .head_max_bytes = config->head_max_bytes,
        .field_count_max = config->header_count_max,
    };
    connection->base = base;
    list_init(&connection->calls);
    thrift_input_init(&connection->input, &base->stream, &limits);
    timer_init(&connection->drain, drain_due, connection);
    timer_init(&base->idle, waited_long, connection);
    base->stream.watch_hangup = true;
    if (base->server->draining)
        drain(base);
    go_on(connection);
}

void thrift_connection_start(struct connection *base)
{
    base->protocol = &thrift;
    base->state = calloc(1, sizeof(struct thrift_connection));
    if (base->state) {
        begin(base, base->state);
        return;
    }
    log_no_memory("no memory for another Thrift connection: it is closed");
    stream_abort(&base->stream);
}
