/*
 * A connection of a proxy in front, which says in a header of the PROXY protocol who its client is,
 * before TLS and all else. From there on addresses are those of the client. Never suspends.
 *
 *   accept ──▶ waiting ──header, or optional and none──▶ the protocol
 *                 └─ malformed, end, timer ─▶ reset, and a line in the log
 *
 * Where a header has come in one piece, as all do that fit into a segment, nothing is kept but what
 * it says. Otherwise its bytes are taken from the stream as they come, which so never has to hold
 * more than it likes to.
 */
#include "http/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/admission.h"
#include "http/proxy_info.h"
#include "net/cidr.h"

enum {
    REFUSALS_LOGGED_PER_S = 10,
    START_BYTES = 12, /* so many tell headers from all else */
};

/* A header that comes in pieces. */
struct partial {
    size_t len;
    char bytes[PROXY_HEADER_MAX_BYTES];
};

static void arrival(struct connection *connection);
static void drain(struct connection *connection);
static void abort_connection(struct connection *connection);
static void closed(struct connection *connection);

static const struct protocol waiting = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
};

bool proxied_connection_expected(const struct http_server *server, const struct address *sender)
{
    const struct proxy_accept *accept = server->config.proxy;
    return accept && cidr_sets_contain(accept->from, sender);
}

/* May there be none? If a reload has meanwhile changed that, what is configured now counts. */
static bool optional(const struct connection *connection)
{
    const struct proxy_accept *accept = connection->server->config.proxy;
    return !accept || accept->optional;
}

/* --- Its ends --------------------------------------------------------------------------------- */

static void forget(struct connection *connection)
{
    timer_stop(&connection->idle);
    free(connection->state);
    connection->state = NULL;
}

static void refuse(struct connection *connection, const char *why)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char sender[ADDRESS_TEXT_MAX];
    forget(connection);
    if (log_limit_pass(&limit, REFUSALS_LOGGED_PER_S, &suppressed)) {
        address_format(&connection->stream.remote, sender);
        log_warn("connection from %s refused: PROXY protocol: %s (%u more were not logged)", sender,
                 why, suppressed);
    }
    stream_abort(&connection->stream);
}

static void go_on(struct connection *connection)
{
    forget(connection);
    if (admission_enter(connection))
        connection_start_protocol(connection);
    else
        stream_abort(&connection->stream);
}

/* Takes the header's word, for all that follows. Returns 1, or -ENOMEM with *why. */
static int adopt(struct connection *connection, struct slice bytes, const char **why)
{
    struct stream *stream = &connection->stream;
    struct proxy_info *info = proxy_info_create(bytes, &stream->remote);
    *why = "out of memory";
    if (!info)
        return -ENOMEM;
    if (info->header.local) {
        proxy_info_release(info);
        return 1;
    }
    connection->proxied = info;
    if (info->header.source.len) {
        stream->remote = info->header.source;
        return connection_set_local(connection, &info->header.destination) ? -ENOMEM : 1;
    }
    return 1;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* 1: it begins with a header; 0: it may yet; negative: there is none or it is malformed. */
static int look(const struct stream *stream, const char **why)
{
    char start[START_BYTES];
    size_t len = 0;
    struct proxy_header header;
    for (const struct io_buf *buf = stream->first; buf && len < sizeof(start); buf = buf->next) {
        size_t piece = buf->len < sizeof(start) - len ? buf->len : sizeof(start) - len;
        memcpy(start + len, buf->data, piece);
        len += piece;
    }
    int result = proxy_header_parse(slice_of(start, len), &header, why);
    return result < 0 ? result : len == sizeof(start);
}

/* Takes what belongs to the header. Returns 1 when it is whole, 0, or a negative errno. */
static int take_pieces(struct stream *stream, struct partial *partial, const char **why)
{
    struct proxy_header header;
    while (stream->first) {
        size_t room = sizeof(partial->bytes) - partial->len;
        size_t piece = stream->first->len < room ? stream->first->len : room;
        memcpy(partial->bytes + partial->len, stream->first->data, piece);
        int result =
            proxy_header_parse(slice_of(partial->bytes, partial->len + piece), &header, why);
        if (result < 0)
            return result;
        if (result > 0)
            piece = (size_t)result - partial->len;
        partial->len += piece;
        stream_consume(stream, (uint32_t)piece);
        if (result > 0)
            return 1;
    }
    return 0;
}

/* The same of one that lies in the first buffer as a whole. */
static int take_whole(struct connection *connection, const char **why)
{
    struct stream *stream = &connection->stream;
    struct proxy_header header;
    int len = proxy_header_parse(slice_of(stream->first->data, stream->first->len), &header, why);
    if (len <= 0)
        return len;
    int result = adopt(connection, slice_of(stream->first->data, (size_t)len), why);
    stream_consume(stream, (uint32_t)len);
    return result;
}

static int take_header(struct connection *connection, const char **why)
{
    struct partial *partial = connection->state;
    if (!partial) {
        int result = take_whole(connection, why);
        if (result != 0)
            return result;
        partial = connection->state = malloc(sizeof(*partial));
        if (!partial) {
            *why = "out of memory";
            return -ENOMEM;
        }
        partial->len = 0;
    }
    int result = take_pieces(&connection->stream, partial, why);
    return result > 0 ? adopt(connection, slice_of(partial->bytes, partial->len), why) : result;
}

/* The stream has ended without a whole header. Who says nothing at all only looks whether somebody
 * is there. */
static void ended(struct connection *connection)
{
    if (connection->state || connection->stream.first) {
        refuse(connection, "the connection ended within its header");
        return;
    }
    forget(connection);
    stream_close(&connection->stream);
}

static void arrival(struct connection *connection)
{
    const struct stream *stream = &connection->stream;
    const char *why = "";
    int result = connection->state ? 1 : look(stream, &why);
    if (result == -ENOMSG && optional(connection)) {
        go_on(connection);
        return;
    }
    if (result > 0)
        result = take_header(connection, &why);
    if (result > 0)
        go_on(connection);
    else if (result < 0)
        refuse(connection, why);
    else if (stream->end != STREAM_OPEN)
        ended(connection);
}

/* --- Time ------------------------------------------------------------------------------------- */

static void expired(struct timer *timer)
{
    struct connection *connection = timer->owner;
    bool silent = !connection->state && !connection->stream.first;
    /* Of protocols where the server speaks first: it waits for us. */
    if (silent && optional(connection) && !connection->server->draining)
        go_on(connection);
    else
        refuse(connection, silent ? "no header came in time" : "its header did not come in time");
}

static void drain(struct connection *connection)
{
    struct io *io = connection->server->io;
    timer_start(io_timers(io), &connection->idle, io_now_ms(io) + CONNECTION_DRAIN_IDLE_MS);
}

static void abort_connection(struct connection *connection)
{
    forget(connection);
    stream_abort(&connection->stream);
}

static void closed(struct connection *connection)
{
    forget(connection);
}

void proxied_connection_start(struct connection *connection)
{
    const struct http_server *server = connection->server;
    connection->protocol = &waiting;
    timer_init(&connection->idle, expired, connection);
    timer_start(io_timers(server->io), &connection->idle,
                io_now_ms(server->io) + server->config.proxy->timeout_ms);
}
