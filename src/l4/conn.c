#include "l4/conn.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/proxy_info.h"
#include "l4/access_log.h"
#include "l4/udp_flow.h"
#include "net/tunnel_state.h"
#include "tls/tls_stream.h"

enum { LINGER_MS = 2000 }; /* how long a client that was sent a FIN may go on sending */

static void arrival(struct connection *connection);
static void drain(struct connection *connection);
static void abort_connection(struct connection *connection);
static void closed(struct connection *connection);
static struct tunnel *moves(struct connection *connection, struct tunnel_state *state);

static struct list finishing = {&finishing, &finishing}; /* conns whose on_close still runs */
static bool worker_ends;

static const struct exchange_codec l4_codec = {.send_interim = NULL};

static const struct protocol layer4 = {
    .arrival = arrival,
    .drain = drain,
    .abort = abort_connection,
    .closed = closed,
    .moves = moves,
};

struct l4_conn *l4_conn_of(const struct request *request)
{
    const struct exchange *exchange = request->exchange;
    return exchange->codec == &l4_codec ? exchange->connection : NULL;
}

const char *l4_reason_name(enum l4_reason reason)
{
    static const char *const names[] = {
        [L4_OPEN] = "open",
        [L4_ENDED] = "ended",
        [L4_CLOSED] = "closed",
        [L4_RESET] = "reset",
        [L4_IDLE] = "idle_timeout",
        [L4_DEADLINE] = "total_timeout",
        [L4_SETUP_DEADLINE] = "setup_timeout",
        [L4_CLIENT_FAILED] = "client_failed",
        [L4_PEER_FAILED] = "peer_failed",
        [L4_CONNECT_FAILED] = "connect_failed",
        [L4_LAYER_FAILED] = "layer_failed",
        [L4_CANCELLED] = "cancelled",
        [L4_EVICTED] = "evicted",
        [L4_SERVED] = "served",
        [L4_MOVED] = "moved",
    };
    return names[reason];
}

/* --- The end ---------------------------------------------------------------------------------- */

/* Behind a FIN of ours: what the client still sends is dropped, until it ends or for a while. */
static void lingered(struct timer *timer)
{
    struct connection *connection = timer->owner;
    stream_close(&connection->stream);
}

static void linger(struct connection *connection)
{
    struct io *io = connection->server->io;
    timer_init(&connection->idle, lingered, connection);
    timer_start(io_timers(io), &connection->idle, io_now_ms(io) + LINGER_MS);
    stream_shutdown(&connection->stream);
    arrival(connection);
}

bool l4_finishing(void)
{
    return !list_empty(&finishing);
}

void l4_cancel_finishing(void)
{
    worker_ends = true;
    list_for_each(node, &finishing) coro_cancel(container_of(node, struct l4_conn, link)->finisher);
}

static void finish_main(void *arg)
{
    struct l4_conn *conn = arg;
    conn->on_close->finish(conn, true);
    list_remove(&conn->link);
    exchange_end(conn->exchange);
}

/* In a coroutine of its own: the present one may be cancelled. False if memory is exhausted. */
static bool start_finisher(struct l4_conn *conn)
{
    conn->finisher = coro_start(finish_main, conn);
    if (!conn->finisher)
        return false;
    list_push_back(&finishing, &conn->link);
    if (worker_ends)
        coro_cancel(conn->finisher);
    return true;
}

static struct slice error_text(int error)
{
    return slice_from_cstr(strerrordesc_np(-error));
}

/* The exchange's end, in two steps: what must see the streams, then what may wait. In between the
 * caller closes the streams. */
static bool begin_end(struct l4_conn *conn)
{
    conn->duration_us = clock_now_us() - conn->exchange->started_us;
    conn->connection = NULL;
    bool more = conn->on_close && conn->on_close->begin(conn);
    conn->exchange->request.tls = NULL; /* it goes with the stream */
    return more;
}

static void finish_end(struct l4_conn *conn, bool more)
{
    if (more && start_finisher(conn))
        return;
    if (more)
        conn->on_close->finish(conn, false);
    exchange_end(conn->exchange);
}

static enum l4_reason reason_of(enum tunnel_reason reason)
{
    static const enum l4_reason reasons[] = {
        [TUNNEL_ENDED] = L4_ENDED,
        [TUNNEL_IDLE] = L4_IDLE,
        [TUNNEL_DEADLINE] = L4_DEADLINE,
        [TUNNEL_CLIENT_FAILED] = L4_CLIENT_FAILED,
        [TUNNEL_PEER_FAILED] = L4_PEER_FAILED,
        [TUNNEL_CANCELLED] = L4_CANCELLED,
        [TUNNEL_LEFT] = L4_MOVED,
    };
    return reasons[reason];
}

/* The tunnel closes both streams behind this. */
static void tunnel_done(const struct tunnel_result *result, void *owner)
{
    struct l4_conn *conn = owner;
    conn->tunnel = NULL;
    conn->reason = conn->verdict ? conn->verdict : reason_of(result->reason);
    if (conn->reason == L4_CLIENT_FAILED || conn->reason == L4_PEER_FAILED)
        conn->why = error_text(result->error);
    conn->client_bytes = result->client_bytes;
    conn->peer_bytes = result->peer_bytes;
    conn->connection->state = NULL;
    finish_end(conn, begin_end(conn));
}

void l4_conn_over(struct l4_conn *conn)
{
    finish_end(conn, begin_end(conn));
}

void l4_conn_end(struct l4_conn *conn, enum l4_reason verdict)
{
    if ((!conn->connection && !conn->flow) || conn->verdict)
        return;
    conn->verdict = verdict;
    if (conn->tunnel)
        tunnel_cancel(conn->tunnel);
    else if (conn->flow && !conn->flow->coro)
        udp_flow_end(conn->flow, verdict, (struct slice){0});
}

/* --- The chain -------------------------------------------------------------------------------- */

static bool start_tunnel(struct l4_conn *conn, struct response *response)
{
    struct connection *connection = conn->connection;
    const struct listener_config *config = &connection->server->config;
    struct io *io = connection->server->io;
    int64_t deadline = DEADLINE_NEVER;
    if (config->total_timeout_ms)
        deadline = conn->exchange->started_us / 1000 + config->total_timeout_ms;
    if (conn->total_timeout_ms && io_now_ms(io) + conn->total_timeout_ms < deadline)
        deadline = io_now_ms(io) + conn->total_timeout_ms;
    if (!connection->stream.first) /* the server may be the one to speak first */
        tls_stream_flush(response->tunnel);
    struct tunnel_options options = {.idle_timeout_ms = conn->idle_timeout_ms,
                                     .half_closed_timeout_ms = config->half_closed_timeout_ms,
                                     .deadline = deadline};
    conn->tunnel = tunnel_start(&connection->stream, response->tunnel, &options, tunnel_done, conn);
    if (!conn->tunnel) {
        log_no_memory("no memory for a tunnel: its connections are closed");
        return false;
    }
    response->tunnel = NULL;
    connection_watch_client(connection);
    exchange_becomes_tunnel(conn->exchange);
    return true;
}

bool l4_conn_connected(const struct l4_conn *conn, const struct response *last)
{
    return conn->tunnel || conn->next_server || (last && last->tunnel) ||
           (conn->flow && conn->flow->fd >= 0);
}

void l4_conn_note_peer(struct l4_conn *conn, const struct address *address)
{
    char text[ADDRESS_TEXT_MAX];
    size_t len = address_format(address, text);
    conn->peer = arena_copy(&conn->exchange->arena, slice_of(text, len));
}

enum l4_reason l4_conn_failure(const struct l4_conn *conn, const struct response *response)
{
    if (conn->verdict)
        return conn->verdict;
    if (conn->connection && conn->connection->stream.end < 0 && (coro_cancelled() || !response))
        return L4_CLIENT_FAILED;
    if (coro_cancelled())
        return L4_CANCELLED;
    if (conn->exchange->total_deadline <= clock_now_ms())
        return L4_SETUP_DEADLINE;
    if (!response || response->error == RESPONSE_LAYER_FAILED)
        return L4_LAYER_FAILED;
    return response->error == RESPONSE_OK ? L4_CLOSED : L4_CONNECT_FAILED;
}

/* Of a connection that ends although it was connected: functions of on_close may hold the exchange
 * for a while, but not its peer. */
static void drop_peer(struct l4_conn *conn)
{
    struct response *response = conn->connected;
    if (!response || !response->tunnel)
        return;
    stream_abort(response->tunnel);
    response->tunnel = NULL;
}

/* Ends a connection that has no tunnel: layers that ended it get the end that they wanted, a
 * failure is a reset, which no client takes for an answer. */
static void end_without_peer(struct l4_conn *conn, const struct response *response)
{
    struct connection *connection = conn->connection;
    conn->reason = l4_conn_failure(conn, response);
    if (conn->reason == L4_CLIENT_FAILED)
        conn->why = error_text(connection->stream.end);
    else if (response && response->error != RESPONSE_OK)
        conn->why = response->error_text;
    drop_peer(conn);
    bool more = begin_end(conn);
    connection->coro = NULL;
    connection->state = NULL;
    if (conn->reason == L4_CLOSED)
        linger(connection);
    else
        stream_abort(&connection->stream);
    finish_end(conn, more);
}

/* A connection on its way to another server. */
struct handing {
    struct connection *connection;
    struct http_server *to;
};

static void hand_on_main(void *arg)
{
    const struct handing *handing = arg;
    connection_hand_on(handing->connection, handing->to);
}

static void hand_on(struct l4_conn *conn)
{
    struct handing handing = {conn->connection, conn->next_server};
    const struct http_server *listener = handing.connection->listener;
    if (listener->draining || listener->service != conn->exchange->service)
        handing.to->draining = true; /* a reload has gone over it while the chain was waiting */
    conn->reason = L4_SERVED;
    bool more = begin_end(conn);
    handing.connection->coro = NULL;
    handing.connection->state = NULL;
    coro_on_main(hand_on_main, &handing);
    finish_end(conn, more);
}

static void conn_main(void *arg)
{
    struct l4_conn *conn = arg;
    struct exchange *exchange = conn->exchange;
    struct response *response = exchange->service->handle(exchange->service, &exchange->request);
    bool well = response && response->error == RESPONSE_OK && !conn->verdict && !coro_cancelled();
    if (well && conn->next_server && !response->tunnel)
        hand_on(conn);
    else if (well && response->tunnel && start_tunnel(conn, response))
        conn->connection->coro = NULL;
    else
        end_without_peer(conn, response);
}

static int64_t setup_deadline(const struct l4_conn *conn)
{
    const struct listener_config *config = &conn->connection->server->config;
    int64_t until = conn->exchange->total_deadline;
    int64_t setup = io_now_ms(conn->exchange->io) + config->setup_timeout_ms;
    return config->setup_timeout_ms && setup < until ? setup : until;
}

static void release_proxied(void *info)
{
    proxy_info_release(info);
}

/* What a proxy in front has said, too, is kept beyond the connection. */
static void keep_proxied(struct exchange *exchange)
{
    struct proxy_info *info = exchange->request.proxied;
    if (!info)
        return;
    if (arena_defer(&exchange->arena, release_proxied, info) == 0)
        proxy_info_retain(info);
    else
        exchange->request.proxied = NULL;
}

static void dress(struct l4_conn *conn)
{
    struct exchange *exchange = conn->exchange;
    exchange->connection = conn;
    exchange->request.scheme = SLICE("");
    exchange->request.remote = &conn->remote;
    exchange->request.local = &conn->local;
}

void l4_conn_begin(struct l4_conn *conn, struct exchange *exchange, struct service *service,
                   struct coro *coro)
{
    conn->exchange = exchange;
    exchange->codec = &l4_codec;
    exchange->coro = coro;
    exchange->service = service;
    service->retain(service);
    dress(conn);
}

static void begin(struct l4_conn *conn, struct connection *connection)
{
    struct exchange *exchange = conn->exchange;
    conn->connection = connection;
    conn->remote = connection->stream.remote;
    conn->local = *connection->stream.local;
    conn->idle_timeout_ms = connection->server->config.tunnel_idle_timeout_ms;
    connection_begin_exchange(connection, exchange, &l4_codec, connection->coro);
    dress(conn);
    keep_proxied(exchange);
    exchange->total_deadline = setup_deadline(conn);
}

/* --- The protocol ----------------------------------------------------------------------------- */

static void out_of_memory(struct timer *timer)
{
    struct connection *connection = timer->owner;
    stream_abort(&connection->stream);
}

void l4_listener_config(struct listener_config *config)
{
    config->start = l4_connection_start;
    config->connection_descriptors = 2;
}

void l4_connection_start(struct connection *connection)
{
    struct io *io = connection->server->io;
    struct exchange *exchange = exchange_begin(io);
    if (exchange)
        arena_be_frugal(&exchange->arena); /* it lives as long as the connection */
    struct l4_conn *conn = exchange ? arena_zalloc(&exchange->arena, sizeof(*conn)) : NULL;
    connection->protocol = &layer4;
    timer_init(&connection->idle, out_of_memory, connection);
    connection->coro = conn ? coro_start(conn_main, conn) : NULL;
    if (conn && connection->coro) {
        connection->state = conn;
        conn->exchange = exchange;
        connection->stream.watch_hangup = true;
        begin(conn, connection);
        return;
    }
    log_no_memory("no memory for another connection of layer 4: it is closed");
    if (exchange)
        exchange_end(exchange);
    timer_start(io_timers(io), &connection->idle, io_now_ms(io)); /* whoever called goes on first */
}

/* No coroutine reads, and no tunnel does. */
static void arrival(struct connection *connection)
{
    struct stream *stream = &connection->stream;
    if (connection->coro) {
        /* What the client says waits for the peer, its FIN too, but one that is gone needs none. */
        if (stream->end < 0)
            coro_cancel(connection->coro);
        return;
    }
    while (stream->first)
        io_buf_release(stream->io, stream_take(stream));
    if (stream->end == STREAM_OPEN)
        return;
    timer_stop(&connection->idle);
    stream_close(stream);
}

/* Tunnels have the grace period to end by themselves: nothing can be said to their ends. */
static void drain(struct connection *connection)
{
    (void)connection;
}

static void abort_connection(struct connection *connection)
{
    struct l4_conn *conn = connection->state;
    if (conn && conn->tunnel)
        tunnel_cancel(conn->tunnel);
    else if (connection->coro)
        coro_cancel(connection->coro);
    else
        stream_abort(&connection->stream);
}

static void closed(struct connection *connection)
{
    timer_stop(&connection->idle);
}

/* --- To another process, and from there --------------------------------------------------------
 */

/* Functions of on_close cannot go along: they live in this process's Lua state. */
static struct tunnel *moves(struct connection *connection, struct tunnel_state *state)
{
    struct l4_conn *conn = connection->state;
    if (!conn || !conn->tunnel || conn->on_close || conn->verdict || !l4_logs_describe(conn, state))
        return NULL;
    state->kind = TUNNEL_OF_LAYER4;
    state->peer = conn->peer;
    state->id = conn->exchange->request.id;
    state->started_us = conn->exchange->started_us;
    return conn->tunnel;
}

static struct l4_conn *adopt_conn(struct connection *connection, const struct tunnel_state *state)
{
    struct exchange *exchange = exchange_begin(connection->server->io);
    if (!exchange)
        return NULL;
    arena_be_frugal(&exchange->arena);
    exchange->codec = &l4_codec;
    if (state->started_us < exchange->started_us)
        exchange->started_us = state->started_us;
    exchange->request.id = state->id;
    struct l4_conn *conn = arena_zalloc(&exchange->arena, sizeof(*conn));
    if (conn) {
        conn->exchange = exchange;
        conn->connection = connection;
        conn->remote = state->client_remote;
        conn->local = state->client_local;
        if (state->peer.len)
            conn->peer = arena_copy(&exchange->arena, state->peer);
        dress(conn);
    }
    if (conn && (!state->peer.len || conn->peer.ptr) && l4_logs_adopt(conn, state))
        return conn;
    if (conn)
        conn->reason = L4_MOVED; /* no line is owed by us */
    exchange_end(exchange);
    return NULL;
}

struct tunnel *l4_connection_adopt(struct connection *connection, struct stream *peer,
                                   const struct tunnel_state *state, struct tunnel_freeze *freeze)
{
    connection->protocol = &layer4;
    timer_init(&connection->idle, out_of_memory, connection);
    struct l4_conn *conn = adopt_conn(connection, state);
    if (!conn)
        return NULL;
    conn->tunnel = tunnel_adopt(&connection->stream, peer, state, freeze, tunnel_done, conn);
    if (!conn->tunnel) {
        conn->reason = L4_MOVED;
        exchange_end(conn->exchange);
        return NULL;
    }
    exchange_becomes_tunnel(conn->exchange);
    connection->state = conn;
    return conn->tunnel;
}
