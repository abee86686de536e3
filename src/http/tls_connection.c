/*
 * A connection of a listener with TLS before its protocol is known: waits for the first bytes,
 * handshakes in a coroutine, then starts what was agreed on (ALPN, RFC 7301). Who speaks HTTP in
 * the clear is told of the mistake.
 *
 *   accept ──▶ waiting ──bytes──▶ [coroutine: handshake] ──▶ http/1.1 or h2
 *                 └─ timer, end ─▶ closed ◀── failed, 400 ──┘
 */
#include "http/connection.h"

#include <string.h>

#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "tls/tls_stream.h"

enum {
    FAILURES_LOGGED_PER_S = 1,
    CLEAR_LINGER_MS = 1000, /* for who was answered in the clear to close first */
};

#define CLEAR_TEXT "This port speaks TLS: ask for https:// instead of http://.\n"
static const char clear_answer[] = "HTTP/1.1 400 Bad Request\r\n"
                                   "Content-Type: text/plain; charset=utf-8\r\n"
                                   "Content-Length: 59\r\n"
                                   "Connection: close\r\n\r\n" CLEAR_TEXT;
_Static_assert(sizeof(CLEAR_TEXT) - 1 == 59, "the length stands in the head above");

static void arrival(struct connection *connection);
static void drain(struct connection *connection);
static void abort_connection(struct connection *connection);
static void closed(struct connection *connection);

static const struct protocol tls_setup = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
};

static void expired(struct timer *timer)
{
    struct connection *connection = timer->owner;
    stream_close(&connection->stream);
}

/* Clients that do not know our authority, scanners and the like: interesting in numbers only. */
static void log_failure(struct connection *connection, const char *why)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char client[ADDRESS_TEXT_MAX];
    counters_add(COUNTER_HANDSHAKES_FAILED, 1);
    if (!log_limit_pass(&limit, FAILURES_LOGGED_PER_S, &suppressed))
        return;
    address_format(&connection->stream.remote, client);
    if (suppressed)
        log_info("TLS handshake with %s failed: %s (%u more were not logged)", client, why,
                 suppressed);
    else
        log_info("TLS handshake with %s failed: %s", client, why);
}

/* What was agreed on holds, also where a reload has changed the listener's protocols meanwhile. */
static bool agreed_on_h2(const char *alpn, const struct listener_config *config)
{
    return *alpn ? strcmp(alpn, "h2") == 0 : !(config->protocols & PROTOCOL_H1);
}

/* On the main stack, as if the bytes behind the handshake had just arrived. */
static void start_protocol(void *arg)
{
    struct connection *connection = arg;
    const struct listener_config *config = &connection->server->config;
    struct tls_info info;
    tls_describe(tls_stream_session(&connection->stream), &info);
    counters_add(info.resumed ? COUNTER_HANDSHAKES_RESUMED : COUNTER_HANDSHAKES_FULL, 1);
    if (config->start)
        config->start(connection);
    else if (agreed_on_h2(info.alpn, config))
        h2_connection_start(connection);
    else
        h1_connection_start(connection);
}

/* Records of TLS begin with 22, methods with a letter. */
static bool speaks_in_clear(const struct connection *connection)
{
    const struct io_buf *buf = connection->stream.first;
    return !connection->server->config.start && buf && buf->len && buf->data[0] >= 'A' &&
           buf->data[0] <= 'Z';
}

/* Closing with unread bytes would reset the connection, and the answer with it (RFC 9112 section
 * 9.6): what the client has left to say is dropped for a moment. */
static void answer_in_clear(struct connection *connection)
{
    struct stream *stream = &connection->stream;
    struct iovec iov = {(void *)clear_answer, sizeof(clear_answer) - 1};
    int64_t end_ms = io_now_ms(stream->io) + CLEAR_LINGER_MS;
    log_failure(connection, "the client speaks HTTP in the clear");
    if (stream_send(stream, &iov, 1, end_ms) < 0)
        return;
    stream_shutdown(stream);
    while (stream_wait_readable(stream, end_ms) > 0)
        io_buf_release(stream->io, stream_take(stream));
}

static void setup_main(void *arg)
{
    struct connection *connection = arg;
    if (speaks_in_clear(connection)) {
        answer_in_clear(connection);
        connection->coro = NULL;
        stream_close(&connection->stream);
        return;
    }
    struct http_server *server = connection->server;
    struct service *service = server->service; /* its generation owns the certificates */
    char error[TLS_ERROR_MAX_BYTES];
    int64_t deadline = connection->idle.at_ms;
    service->retain(service);
    int result = tls_stream_accept(&connection->stream, server->config.tls,
                                   server->config.tls_hello, error, deadline);
    service->release(service);
    connection->coro = NULL;
    if (result == 0) {
        coro_on_main(start_protocol, connection);
        return;
    }
    if (!coro_cancelled())
        log_failure(connection, error);
    stream_close(&connection->stream);
}

static void arrival(struct connection *connection)
{
    struct stream *stream = &connection->stream;
    if (connection->coro) {
        if (stream->end < 0)
            coro_cancel(connection->coro);
        return;
    }
    timer_stop(&connection->idle);
    if (stream->first && connection->server->config.tls)
        connection->coro = coro_start(setup_main, connection);
    if (!connection->coro)
        stream_close(stream); /* nothing was said, there is no memory, or no TLS here any more */
}

static void drain(struct connection *connection)
{
    struct io *io = connection->server->io;
    if (timer_armed(&connection->idle))
        timer_start(io_timers(io), &connection->idle, io_now_ms(io) + CONNECTION_DRAIN_IDLE_MS);
}

static void abort_connection(struct connection *connection)
{
    timer_stop(&connection->idle);
    if (connection->coro)
        coro_cancel(connection->coro);
    else
        stream_abort(&connection->stream);
}

static void closed(struct connection *connection)
{
    (void)connection; /* it holds nothing yet */
}

void tls_connection_start(struct connection *connection)
{
    struct http_server *server = connection->server;
    connection->protocol = &tls_setup;
    timer_init(&connection->idle, expired, connection);
    timer_start(io_timers(server->io), &connection->idle,
                io_now_ms(server->io) + server->config.handshake_timeout_ms);
    if (connection->stream.first || connection->stream.end != STREAM_OPEN)
        arrival(connection);
}
