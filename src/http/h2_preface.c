/*
 * A cleartext connection that may be HTTP/1 or HTTP/2: its first bytes tell. HTTP/2 with prior
 * knowledge begins with a preface (RFC 9113 section 3.4), which is no request of HTTP/1. The bytes
 * stay queued for the protocol that gets the connection. Never suspends.
 */
#include "http/connection.h"

#include "base/clock.h"

static void arrival(struct connection *connection);
static void drain(struct connection *connection);
static void abort_connection(struct connection *connection);
static void closed(struct connection *connection);

static const struct protocol undecided = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
};

/* 1: it is the preface; 0: it may become it; -1: it is something else. */
static int compare(const struct stream *stream)
{
    static const struct slice preface = SLICE_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    size_t at = 0;
    for (const struct io_buf *buf = stream->first; buf && at < preface.len; buf = buf->next) {
        size_t len = buf->len < preface.len - at ? buf->len : preface.len - at;
        if (memcmp(buf->data, preface.ptr + at, len) != 0)
            return -1;
        at += len;
    }
    return at == preface.len ? 1 : 0;
}

static void arrival(struct connection *connection)
{
    const struct stream *stream = &connection->stream;
    int verdict = compare(stream);
    if (verdict == 0 && stream->end == STREAM_OPEN)
        return;
    timer_stop(&connection->idle);
    if (verdict > 0)
        h2_connection_start(connection);
    else
        h1_connection_start(connection); /* an end behind half a preface is its to answer too */
}

static void expired(struct timer *timer)
{
    struct connection *connection = timer->owner;
    stream_close(&connection->stream);
}

static void drain(struct connection *connection)
{
    struct io *io = connection->server->io;
    timer_start(io_timers(io), &connection->idle, io_now_ms(io) + CONNECTION_DRAIN_IDLE_MS);
}

static void abort_connection(struct connection *connection)
{
    timer_stop(&connection->idle);
    stream_abort(&connection->stream);
}

static void closed(struct connection *connection)
{
    timer_stop(&connection->idle);
}

void h2_preface_start(struct connection *connection)
{
    const struct http_server *server = connection->server;
    connection->protocol = &undecided;
    timer_init(&connection->idle, expired, connection);
    timer_start(io_timers(server->io), &connection->idle,
                io_now_ms(server->io) + server->config.head_timeout_ms);
    if (connection->stream.first || connection->stream.end != STREAM_OPEN)
        arrival(connection);
}
