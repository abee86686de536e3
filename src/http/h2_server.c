/*
 * The life of a client's HTTP/2 connection: from the preface to the end, timers, draining.
 *
 *   start ──▶ open ──(GOAWAY sent, streams done)──▶ ended ──▶ lingering ──(FIN, timer)──▶ closed
 *               └──(reset, stall, flood)──────────▶ ended ──(coroutines done)───────────▶ closed
 *
 * What arrives goes through h2_frames.c and h2_callbacks.c.
 */
#include "http/h2_connection.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/h2_callbacks.h"
#include "http/h2_frames.h"
#include "http/idle.h"

enum {
    LINGER_MS = 2000, /* for the client to read what was said last; then it is closed on */
};

static void arrival(struct connection *base);
static void drain(struct connection *base);
static void abort_connection(struct connection *base);
static void closed(struct connection *base);

static const struct protocol http_h2 = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
};

static void start_timer(struct h2_connection *connection, struct timer *timer, uint32_t ms)
{
    struct io *io = connection->base->server->io;
    timer_start(io_timers(io), timer, io_now_ms(io) + ms);
}

/* --- Idleness --------------------------------------------------------------------------------- */

/* What the idle timer waits for. */
static enum h2_waiting waiting_for(const struct h2_connection *connection)
{
    if (connection->ended)
        return connection->waiting;
    if (connection->head_open)
        return H2_WAITING_HEAD;
    return connection->stream_count ? H2_WAITING_NOTHING : H2_WAITING_REQUEST;
}

void h2_connection_update_timer(struct h2_connection *connection)
{
    const struct listener_config *config = &connection->base->server->config;
    enum h2_waiting waiting = waiting_for(connection);
    if (waiting == connection->waiting)
        return;
    connection->waiting = waiting;
    if (waiting == H2_WAITING_REQUEST)
        idle_begin(connection->base);
    else
        idle_end(connection->base);
    if (waiting == H2_WAITING_NOTHING)
        timer_stop(&connection->base->idle);
    else if (waiting == H2_WAITING_HEAD || !connection->requests)
        start_timer(connection, &connection->base->idle, config->head_timeout_ms);
    else
        start_timer(connection, &connection->base->idle, config->idle_timeout_ms);
}

static void waited_long(struct timer *timer)
{
    struct h2_connection *connection = timer->owner;
    if (connection->lingering)
        h2_transport_close(&connection->transport, false);
    else
        h2_transport_terminate(&connection->transport, connection->waiting == H2_WAITING_HEAD
                                                           ? NGHTTP2_PROTOCOL_ERROR
                                                           : NGHTTP2_NO_ERROR);
}

static void settings_overdue(struct timer *timer)
{
    struct h2_connection *connection = timer->owner;
    h2_transport_terminate(&connection->transport, NGHTTP2_SETTINGS_TIMEOUT);
}

/* --- Ending ----------------------------------------------------------------------------------- */

/* Closing with unread bytes would reset the connection and could destroy the last frames on their
 * way, so what a client still sends is waited for a while. */
static void close_when_over(struct h2_connection *connection)
{
    struct stream *stream = &connection->base->stream;
    struct h2_transport *transport = &connection->transport;
    if (connection->stream_count || connection->lingering || transport->closing)
        return;
    if (transport->error || stream->end != STREAM_OPEN) {
        h2_transport_close(transport, transport->error && transport->error != -ECONNRESET);
        return;
    }
    connection->lingering = true;
    stream_shutdown(stream);
    start_timer(connection, &connection->base->idle, LINGER_MS);
}

static void cancel_streams(struct h2_connection *connection)
{
    connection->stream_count++; /* so that the last one does not close the connection under us */
    for (struct list *node = connection->streams.next, *next; node != &connection->streams;
         node = next) {
        next = node->next;
        h2_stream_cancel(container_of(node, struct h2_stream, link));
    }
    connection->stream_count--;
}

static void ended(struct h2_transport *transport, int error)
{
    struct h2_connection *connection = transport->owner;
    (void)error; /* the transport keeps it */
    connection->ended = true;
    timer_stop(&connection->base->idle);
    idle_end(connection->base);
    timer_stop(&connection->settings);
    timer_stop(&connection->drain);
    cancel_streams(connection);
    close_when_over(connection);
}

/* A client that says no more still gets its answers, but half a request is none. */
static void half_closed(struct h2_transport *transport)
{
    struct h2_connection *connection = transport->owner;
    timer_stop(&connection->settings); /* no acknowledgement will come any more */
    list_for_each(node, &connection->streams)
        h2_input_fail(&container_of(node, struct h2_stream, link)->input, -ECONNRESET);
}

void h2_connection_stream_ended(struct h2_connection *connection)
{
    if (connection->ended)
        close_when_over(connection);
    else
        h2_connection_update_timer(connection);
}

void h2_connection_last_request(struct h2_connection *connection)
{
    struct h2_transport *transport = &connection->transport;
    if (transport->ending)
        return;
    connection->last_named = true;
    int32_t last = nghttp2_session_get_last_proc_stream_id(transport->session);
    if (nghttp2_submit_goaway(transport->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL,
                              0) != 0)
        h2_transport_end(transport, -ENOMEM);
    h2_transport_flush(transport);
}

static void drain_due(struct timer *timer)
{
    h2_connection_last_request(timer->owner);
}

/* Requests may be on their way: a notice first, and what came until it is heard is still served
 * (RFC 9113 section 6.8). */
static void drain(struct connection *base)
{
    struct h2_connection *connection = base->state;
    struct h2_transport *transport = &connection->transport;
    if (transport->ending || timer_armed(&connection->drain))
        return;
    nghttp2_submit_shutdown_notice(transport->session);
    h2_transport_flush(transport);
    start_timer(connection, &connection->drain, CONNECTION_DRAIN_IDLE_MS);
}

static void abort_connection(struct connection *base)
{
    struct h2_connection *connection = base->state;
    if (!connection || connection->transport.closing)
        return;
    if (connection->lingering)
        h2_transport_close(&connection->transport, true);
    else
        h2_transport_end(&connection->transport, -ECANCELED);
}

static void closed(struct connection *base)
{
    struct h2_connection *connection = base->state;
    if (!connection)
        return;
    timer_stop(&base->idle);
    timer_stop(&connection->settings);
    timer_stop(&connection->drain);
    free(connection);
    base->state = NULL;
}

/* --- Life ------------------------------------------------------------------------------------- */

static void arrival(struct connection *base)
{
    struct h2_connection *connection = base->state;
    if (connection->transport.closing)
        return;
    if (connection->lingering && base->stream.end != STREAM_OPEN) {
        h2_transport_close(&connection->transport, false);
        return;
    }
    h2_transport_receive(&connection->transport);
    h2_connection_update_timer(connection);
}

static const struct h2_transport_ops transport_ops = {
    .ended = ended,
    .half_closed = half_closed,
    .frame_begun = h2_frames_begun,
    .flooded = h2_frames_flooded,
};

static struct h2_connection *create(struct connection *base)
{
    const struct listener_config *config = &base->server->config;
    struct h2_transport_options options = {
        .server = true,
        .streams_max = config->h2_streams_max,
        .window_bytes = config->h2_window_bytes,
        .header_list_max_bytes = config->head_max_bytes,
        .ops = &transport_ops,
        .callbacks = h2_callbacks(),
    };
    struct h2_connection *connection = options.callbacks ? calloc(1, sizeof(*connection)) : NULL;
    options.owner = connection;
    if (!connection)
        return NULL;
    connection->base = base;
    list_init(&connection->streams);
    timer_init(&connection->settings, settings_overdue, connection);
    timer_init(&connection->drain, drain_due, connection);
    if (h2_transport_init(&connection->transport, &base->stream, &options) == 0)
        return connection;
    free(connection);
    return NULL;
}

void h2_connection_start(struct connection *base)
{
    struct h2_connection *connection = create(base);
    base->protocol = &http_h2;
    base->state = connection;
    if (!connection) {
        log_no_memory("no memory for another HTTP/2 connection: it is closed");
        stream_abort(&base->stream);
        return;
    }
    base->stream.watch_hangup = true; /* behind a FIN there may be streams to be answered */
    timer_init(&base->idle, waited_long, connection);
    h2_connection_update_timer(connection);
    start_timer(connection, &connection->settings, base->server->config.head_timeout_ms);
    h2_transport_flush(&connection->transport);
    if (base->server->draining)
        drain(base);
    if (base->stream.first || base->stream.end != STREAM_OPEN)
        arrival(base);
}
