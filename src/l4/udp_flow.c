#include "l4/udp_flow.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "proxy/dial.h"
#include "proxy/pick.h"

/* When a peer has sent so many, its socket is asked for runs, which costs a short flow more than it
 * saves. */
enum { RUNS_FROM_PACKETS = 16 };

static uint32_t flows_of_all;

static void from_peer(struct io_op *op, int result, struct io_buf *buf, bool more);
static void look_at_time(struct timer *timer);

/* --- The end ---------------------------------------------------------------------------------- */

uint32_t udp_flows_of_all(void)
{
    return flows_of_all;
}

void udp_flow_unpin(struct udp_flow *flow)
{
    struct udp_server *server = flow->server;
    if (--flow->pins)
        return;
    if (flow->fd >= 0)
        io_close_fd(server->io, flow->fd);
    flow->service->release(flow->service);
    server->flow_count--;
    flows_of_all--;
    counters_add(COUNTER_UDP_FLOWS_OPEN, -1);
    free(flow);
}

static void drop_queue(struct udp_flow *flow)
{
    while (flow->queue) {
        struct io_buf *buf = flow->queue;
        flow->queue = buf->next;
        flow->server->queued_bytes -= buf->len;
        udp_count_dropped(flow->server, 1);
        io_buf_release(flow->server->io, buf);
    }
    flow->queued = 0;
}

/* Layers hear of the end when none of them is running any more. */
static void conclude(struct udp_flow *flow)
{
    struct l4_conn *conn = flow->conn;
    flow->conn = NULL;
    if (!conn)
        return;
    conn->flow = NULL;
    conn->client_bytes = flow->client_bytes;
    conn->client_packets = flow->client_packets;
    conn->peer_bytes = flow->peer_bytes;
    conn->peer_packets = flow->peer_packets;
    l4_conn_over(conn);
}

void udp_flow_end(struct udp_flow *flow, enum l4_reason reason, struct slice why)
{
    if (flow->ended)
        return;
    flow->ended = true;
    udp_table_remove(&flow->server->table, &flow->entry);
    admission_give(&flow->server->admission, &flow->source);
    list_remove(&flow->link);
    timer_stop(&flow->timer);
    drop_queue(flow);
    if (io_op_in_flight(&flow->receive))
        io_cancel(flow->server->io, &flow->receive);
    if (flow->peer)
        peer_datagrams_over(flow->peer);
    flow->peer = NULL;
    if (flow->conn) {
        flow->conn->reason = reason;
        flow->conn->why = why;
    }
    if (flow->coro)
        coro_cancel(flow->coro);
    else
        conclude(flow);
    assert(flow->pins > 1); /* its receive or its coroutine, of which the end is heard later */
    flow->pins--;
}

void udp_flow_peer_failed(struct udp_flow *flow, int error)
{
    static struct log_limit limit;
    uint32_t suppressed;
    struct peer *peer = flow->peer;
    assert(peer);
    if (log_limit_pass(&limit, 1, &suppressed))
        log_warn("upstream \"%s\", peer %s: %s%s", upstream_name(flow->upstream), peer->text,
                 strerrordesc_np(-error), suppressed ? " (and more like it)" : "");
    peer_failed(peer, &flow->upstream->config);
    udp_flow_end(flow, L4_PEER_FAILED, slice_from_cstr(strerrordesc_np(-error)));
}

/* --- Carrying --------------------------------------------------------------------------------- */

static void touch(struct udp_flow *flow)
{
    struct udp_server *server = flow->server;
    flow->last_ms = io_now_ms(server->io);
    list_remove(&flow->link);
    list_push_back(flow->established ? &server->established : &server->fresh, &flow->link);
}

static void send_to_peer(struct udp_flow *flow, struct io_buf *buf, uint32_t segment)
{
    flow->client_packets += udp_run_count(buf->len, segment);
    flow->client_bytes += buf->len;
    udp_send(flow, buf, segment, false);
}

/* It ends in so long, if not before. */
static void bound(struct udp_flow *flow, uint32_t total_timeout_ms)
{
    int64_t until_ms = io_now_ms(flow->server->io) + total_timeout_ms;
    if (until_ms < flow->until_ms)
        flow->until_ms = until_ms;
}

static void attach(struct udp_flow *flow, struct upstream *upstream, struct peer *peer, int fd,
                   const struct l4_splice *options)
{
    flow->fd = fd;
    flow->upstream = upstream;
    flow->peer = peer;
    flow->idle_timeout_ms = options->idle_timeout_ms == L4_TIMEOUT_UNSET ? UDP_IDLE_TIMEOUT_MS
                                                                         : options->idle_timeout_ms;
    flow->responses_max = options->responses_max;
    if (options->total_timeout_ms != L4_TIMEOUT_UNSET && options->total_timeout_ms)
        bound(flow, options->total_timeout_ms);
}

static int64_t due(const struct udp_flow *flow)
{
    int64_t idle_ms = flow->last_ms + flow->idle_timeout_ms;
    return idle_ms < flow->until_ms ? idle_ms : flow->until_ms;
}

static void start_carrying(struct udp_flow *flow)
{
    struct io *io = flow->server->io;
    flow->receive = (struct io_op){.kind = IO_OP_RECV_FROM,
                                   .fd = flow->fd,
                                   .msg = {.msg_controllen = UDP_CONTROL_ROOM},
                                   .done = from_peer,
                                   .owner = flow};
    flow->pins++;
    io_submit(io, &flow->receive);
    flow->last_ms = io_now_ms(io);
    timer_start(io_timers(io), &flow->timer, due(flow));
    while (flow->queue) {
        struct io_buf *buf = flow->queue;
        flow->queue = buf->next;
        flow->server->queued_bytes -= buf->len;
        send_to_peer(flow, buf, buf->len);
    }
    flow->queued = 0;
}

/* Only now and then: what is received moves last_ms, not the timer. */
static void look_at_time(struct timer *timer)
{
    struct udp_flow *flow = timer->owner;
    int64_t now_ms = io_now_ms(flow->server->io);
    if (now_ms < due(flow)) {
        timer_start(io_timers(flow->server->io), timer, due(flow));
        return;
    }
    if (flow->responses_max && !flow->answered) /* it owes one */
        peer_failed(flow->peer, &flow->upstream->config);
    udp_flow_end(flow, now_ms >= flow->until_ms ? L4_DEADLINE : L4_IDLE, (struct slice){0});
}

static void answer(struct udp_flow *flow, struct io_buf *buf)
{
    struct io_datagram datagram = io_datagram_of(&flow->receive, buf);
    uint32_t segment = udp_read_segment(&datagram.control, buf->len);
    if (datagram.truncated) {
        flow->server->stats.truncated++;
        counters_add(COUNTER_UDP_TRUNCATED, 1);
        io_buf_release(flow->server->io, buf);
        return;
    }
    if (!flow->answered)
        peer_succeeded(flow->peer);
    flow->answered = true;
    flow->peer_packets += udp_run_count(buf->len, segment);
    flow->peer_bytes += buf->len;
    if (flow->peer_packets >= RUNS_FROM_PACKETS && !flow->asked_runs && !flow->responses_max) {
        flow->asked_runs = true;
        udp_ask_runs(flow->fd);
    }
    touch(flow);
    udp_send(flow, buf, segment, true);
    if (flow->responses_max && flow->peer_packets >= flow->responses_max * flow->client_packets)
        udp_flow_end(flow, L4_ENDED, (struct slice){0});
}

static void from_peer(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    struct udp_flow *flow = op->owner;
    if (buf && !flow->ended)
        answer(flow, buf);
    else if (buf)
        io_buf_release(flow->server->io, buf);
    if (more)
        return;
    if (!flow->ended)
        udp_flow_peer_failed(flow, result);
    udp_flow_unpin(flow);
}

/* Copied, since a receive buffer takes the space of the largest datagram. */
static void enqueue(struct udp_flow *flow, struct io_buf *buf)
{
    struct udp_server *server = flow->server;
    struct io_buf *copy = NULL;
    if (flow->queued < server->config.flow_queue_max &&
        server->queued_bytes + buf->len <= UDP_QUEUED_BYTES_MAX)
        copy = io_buf_copy(buf->data, buf->len);
    io_buf_release(server->io, buf);
    if (!copy) {
        udp_count_dropped(server, 1);
        return;
    }
    if (flow->queue)
        flow->queue_last->next = copy;
    else
        flow->queue = copy;
    flow->queue_last = copy;
    flow->queued++;
    server->queued_bytes += copy->len;
}

void udp_flow_take(struct udp_flow *flow, struct io_buf *buf, uint32_t segment)
{
    flow->established |= flow->answered;
    touch(flow);
    if (flow->coro)
        enqueue(flow, buf);
    else
        send_to_peer(flow, buf, segment);
}

/* --- The chain -------------------------------------------------------------------------------- */

static void flow_main(void *arg)
{
    struct udp_flow *flow = arg;
    struct l4_conn *conn = flow->conn;
    struct exchange *exchange = conn->exchange;
    struct response *response = exchange->service->handle(exchange->service, &exchange->request);
    bool connected = flow->fd >= 0 && !conn->verdict && !coro_cancelled() && response &&
                     response->error == RESPONSE_OK;
    flow->coro = NULL;
    if (flow->ended)
        conclude(flow);
    else if (connected)
        start_carrying(flow);
    else
        udp_flow_end(flow, l4_conn_failure(conn, response),
                     response && response->error ? response->error_text : (struct slice){0});
    udp_flow_unpin(flow);
}

static bool start_chain(struct udp_flow *flow)
{
    struct udp_server *server = flow->server;
    struct exchange *exchange = exchange_begin(server->io);
    struct l4_conn *conn = exchange ? arena_zalloc(&exchange->arena, sizeof(*conn)) : NULL;
    flow->coro = conn ? coro_start(flow_main, flow) : NULL;
    if (!flow->coro) {
        if (exchange)
            exchange_end(exchange);
        return false;
    }
    flow->pins++;
    flow->conn = conn;
    conn->flow = flow;
    conn->of_datagrams = true;
    udp_end_to_address(&flow->entry.key.client, &conn->remote);
    udp_end_to_address(&flow->entry.key.local, &conn->local);
    l4_conn_begin(conn, exchange, flow->service, flow->coro);
    int64_t setup_ms = io_now_ms(server->io) + server->config.setup_timeout_ms;
    bool sooner = server->config.setup_timeout_ms && setup_ms < flow->until_ms;
    exchange->total_deadline = sooner ? setup_ms : flow->until_ms;
    return true;
}

/* Names take a coroutine to resolve, the first time; whose turn it is must not be found out before.
 */
static bool all_resolved(const struct balancer *balancer)
{
    for (unsigned i = 0; i < balancer->count; i++)
        if (!balancer->peers[i].peer->address_count)
            return false;
    return true;
}

/* For a chain that is nothing but a proxy: no coroutine, no exchange. False where this does not do:
 * there is a name to resolve, a failure to tell of, another peer to try. */
static bool connect_at_once(struct udp_flow *flow, const struct l4_proxy *proxy)
{
    static const struct tried none;
    struct address client;
    struct request stand_in = {.remote = &client}; /* for rules that look at the client's address */
    struct upstream *upstream = proxy->upstream;
    bool full;
    if (!all_resolved(&upstream->balancer))
        return false;
    udp_end_to_address(&flow->entry.key.client, &client);
    int index = balance_pick(&upstream->balancer, &stand_in, &none,
                             upstream->config.connections_max, &full);
    struct peer *peer = index >= 0 ? upstream->balancer.peers[index].peer : NULL;
    if (!peer)
        return false;
    int fd = peer_connect_datagrams(peer, &upstream->config, &flow->to, DEADLINE_NEVER);
    if (fd != -EAGAIN)
        counters_add_upstream(peer->counters, UPSTREAM_ATTEMPTS, 1);
    if (fd < 0)
        return false;
    attach(flow, upstream, peer, fd, &proxy->options);
    return true;
}

struct udp_flow *udp_flow_begin(struct udp_server *server, const struct udp_key *key, uint64_t hash)
{
    struct udp_flow *flow = calloc(1, sizeof(*flow));
    if (!flow)
        return NULL;
    flow->entry.key = *key;
    flow->entry.hash = hash;
    flow->server = server;
    flow->service = server->service;
    flow->fd = -1;
    flow->sends_runs = server->sends_runs;
    flow->until_ms = DEADLINE_NEVER;
    if (server->config.total_timeout_ms)
        bound(flow, server->config.total_timeout_ms);
    flow->pins = 1;
    list_init(&flow->link);
    timer_init(&flow->timer, look_at_time, flow);
    if (udp_table_add(&server->table, &flow->entry) < 0) {
        free(flow);
        return NULL;
    }
    flow->service->retain(flow->service);
    server->flow_count++;
    flows_of_all++;
    counters_add(COUNTER_UDP_FLOWS_OPEN, 1);
    server->stats.flows++;
    counters_add(COUNTER_UDP_FLOWS, 1);
    touch(flow);
    if (server->direct && connect_at_once(flow, server->direct)) {
        start_carrying(flow);
    } else if (!start_chain(flow)) {
        flow->pins++;
        udp_flow_end(flow, L4_CANCELLED, (struct slice){0});
        udp_flow_unpin(flow);
        return NULL;
    }
    return flow;
}

/* --- Peers ------------------------------------------------------------------------------------ */

struct flow_dialer {
    struct dialer dialer; /* first */
    struct udp_flow *flow;
    struct peer *peer;
    int fd;
};

static int connect_flow(struct dialer *dialer, struct peer *peer,
                        const struct upstream_config *config, int64_t deadline)
{
    struct flow_dialer *self = (struct flow_dialer *)dialer;
    struct address to;
    self->fd = peer_connect_datagrams(peer, config, &to, deadline);
    if (self->fd < 0)
        return self->fd;
    self->peer = peer;
    self->flow->to = to;
    return 0;
}

struct response *udp_flow_splice(struct udp_flow *flow, struct upstream *upstream,
                                 struct request *request, const struct l4_splice *options)
{
    struct flow_dialer dialer = {.dialer.connect = connect_flow, .flow = flow};
    struct slice why;
    int result = upstream_dial_with(upstream, request, &dialer.dialer, &why);
    if (result < 0)
        return l4_dial_failure(request, result, why);
    struct response *response = flow->ended ? NULL : response_create(request, 200);
    if (!response) {
        peer_datagrams_over(dialer.peer);
        io_close_fd(flow->server->io, dialer.fd);
        return NULL;
    }
    attach(flow, upstream, dialer.peer, dialer.fd, options);
    l4_conn_note_peer(flow->conn, &flow->to);
    return response;
}
