#include "l4/udp_server.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/counters.h"
#include "base/log.h"
#include "l4/udp_flow.h"

enum {
    TICK_MS = 250,
    DRAIN_QUIET_MS = 1000,  /* a flow without traffic for so long has ended, as far as we know */
    DRAIN_ANSWER_MS = 5000, /* or for so long when its client has not been answered */
    RECEIVE_AGAIN_MS = 100, /* behind a failure, such as missing memory */
};

static void received(struct io_op *op, int result, struct io_buf *buf, bool more);
static void tick(struct timer *timer);

void udp_server_init(struct udp_server *server, struct io *io, int fd)
{
    struct address address = {.len = sizeof(address.v6)};
    *server = (struct udp_server){.io = io, .fd = fd};
    list_init(&server->fresh);
    list_init(&server->established);
    udp_table_init(&server->table);
    timer_init(&server->tick, tick, server);
    listener_config_init(&server->config);
    admission_init(&server->admission);
    if (getsockname(fd, &address.any, &address.len) == 0)
        udp_end_from_address(&server->local, &address);
    server->any = udp_end_any(&server->local);
    server->sends_runs = udp_sends_runs(fd);
}

static const char *name_of(const struct udp_server *server, char text[ADDRESS_TEXT_MAX])
{
    struct address address;
    udp_end_to_address(&server->local, &address);
    address_format(&address, text);
    return text;
}

static void receive(struct udp_server *server)
{
    server->receive =
        (struct io_op){.kind = IO_OP_RECV_FROM,
                       .fd = server->fd,
                       .msg = {.msg_namelen = UDP_NAME_ROOM, .msg_controllen = UDP_CONTROL_ROOM},
                       .done = received,
                       .owner = server};
    io_submit(server->io, &server->receive);
}

static void set_buffers(const struct udp_server *server)
{
    const struct listener_config *config = &server->config;
    int receive_bytes = (int)config->receive_buffer_bytes;
    int send_bytes = (int)config->send_buffer_bytes;
    if (receive_bytes)
        setsockopt(server->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    if (send_bytes)
        setsockopt(server->fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
}

static void begin(struct udp_server *server)
{
    int result = server->any ? udp_ask_destination(server->fd, &server->local) : 0;
    char name[ADDRESS_TEXT_MAX];
    if (result < 0)
        log_error("udp:%s: cannot learn which address clients send to: %s; answers may leave from "
                  "another",
                  name_of(server, name), strerror(-result));
    udp_ask_runs(server->fd);
    receive(server);
}

void udp_server_set_service(struct udp_server *server, struct service *service,
                            const struct listener_config *config, const struct l4_proxy *direct)
{
    struct service *old = server->service;
    service->retain(service);
    server->service = service;
    server->config = *config;
    server->direct = direct;
    set_buffers(server);
    if (old)
        old->release(old);
    else
        begin(server);
}

/* --- The bound -------------------------------------------------------------------------------- */

/* Flows take at most half of the descriptors, so that clients and requests find some, too. */
static uint32_t flows_possible(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)(limit.rlim_cur / 2);
}

static void warn_of_bound(const struct udp_server *server, bool of_process)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char name[ADDRESS_TEXT_MAX];
    if (!log_limit_pass(&limit, 1, &suppressed))
        return;
    log_warn("udp:%s: %u flows are open, all with clients that go on: new ones are refused (%s)",
             name_of(server, name), server->table.count,
             of_process ? "to allow for more raise the limit of open files: ulimit -n, LimitNOFILE="
                        : "flows_max");
}

/* Beyond the bound a new flow takes the place of the oldest one whose client has said nothing since
 * it was answered: an exchange that is over, or made-up senders. Whoever goes on talking stays. */
static bool make_room(struct udp_server *server)
{
    bool of_process = udp_flows_of_all() >= flows_possible();
    if (server->table.count < server->config.flows_max && !of_process)
        return true;
    if (list_empty(&server->fresh)) {
        warn_of_bound(server, of_process);
        server->stats.refused++;
        counters_add(COUNTER_UDP_FLOWS_REFUSED, 1);
        return false;
    }
    server->stats.evicted++;
    counters_add(COUNTER_UDP_FLOWS_EVICTED, 1);
    udp_flow_end(udp_flow_of(server->fresh.next), L4_EVICTED, (struct slice){0});
    return true;
}

/* Whoever comes too fast cannot wait in a queue, as connections do: a datagram is lost, which its
 * sender has to reckon with anyway. */
static bool within_rate(const struct udp_server *server)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char name[ADDRESS_TEXT_MAX];
    if (admission_rate_left(&server->admission, &server->config))
        return true;
    counters_add(COUNTER_UDP_FLOWS_OVER_RATE, 1);
    if (log_limit_pass(&limit, 1, &suppressed))
        log_info("udp:%s: datagrams of new flows are dropped (accept_rate = %u)",
                 name_of(server, name), server->config.accept_rate);
    return false;
}

/* --- Datagrams -------------------------------------------------------------------------------- */

/* Between whom it passes. False for what cannot be answered. */
static bool read_key(const struct udp_server *server, struct io_datagram *datagram,
                     struct udp_key *key)
{
    key->local = server->local;
    if (!udp_end_read(&key->client, datagram->source, datagram->source_len))
        return false;
    if (server->any && !udp_read_destination(&datagram->control, &key->local))
        return false;
    return key->client.v4.sin_port != 0; /* lies at the same place in both families */
}

static struct udp_flow *flow_for(struct udp_server *server, const struct udp_key *key)
{
    uint64_t hash = udp_table_hash(&server->table, key);
    struct udp_flow *flow = (struct udp_flow *)udp_table_find(&server->table, key, hash);
    if (flow || server->draining)
        return flow;
    struct address client;
    uint64_t source;
    udp_end_to_address(&key->client, &client);
    if (!admission_check(&server->admission, &server->config, &client, &source))
        return NULL;
    if (within_rate(server) && make_room(server))
        flow = udp_flow_begin(server, key, hash);
    if (flow) {
        flow->source = source;
        admission_rate_take(&server->admission, &server->config);
    } else {
        admission_give(&server->admission, &source);
    }
    return flow;
}

/* Is there a flow that takes runs? One that has yet to begin, or whose layers have yet to decide,
 * takes one datagram after the other, since each counts for the bounds. */
static bool carries(const struct udp_server *server, const struct udp_key *key)
{
    uint64_t hash = udp_table_hash(&server->table, key);
    const struct udp_flow *flow = (struct udp_flow *)udp_table_find(&server->table, key, hash);
    return flow && !flow->coro;
}

static void pass(struct udp_server *server, const struct udp_key *key, struct io_buf *buf,
                 uint32_t segment)
{
    struct udp_flow *flow = flow_for(server, key);
    if (flow)
        udp_flow_take(flow, buf, segment);
    else
        io_buf_release(server->io, buf);
}

static void take(struct udp_server *server, struct io_op *op, struct io_buf *buf)
{
    struct io_datagram datagram = io_datagram_of(op, buf);
    struct udp_key key;
    uint32_t segment = udp_read_segment(&datagram.control, buf->len);
    uint32_t count = udp_run_count(buf->len, segment);
    server->stats.received += count;
    counters_add(COUNTER_UDP_DATAGRAMS, count);
    if (datagram.truncated) {
        server->stats.truncated++;
        counters_add(COUNTER_UDP_TRUNCATED, 1);
        io_buf_release(server->io, buf);
        return;
    }
    if (!read_key(server, &datagram, &key)) {
        io_buf_release(server->io, buf);
        return;
    }
    while (buf->len > segment && !carries(server, &key)) {
        struct io_buf *first = udp_take_first(server, buf, segment);
        if (first)
            pass(server, &key, first, segment);
    }
    pass(server, &key, buf, segment);
}

static void close_socket(struct udp_server *server)
{
    int fd = server->fd;
    server->fd = -1;
    timer_stop(&server->tick);
    io_close_fd(server->io, fd);
}

static void received(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    static struct log_limit limit;
    struct udp_server *server = op->owner;
    uint32_t suppressed;
    char name[ADDRESS_TEXT_MAX];
    if (buf)
        take(server, op, buf);
    if (more)
        return;
    if (result != -ECANCELED && log_limit_pass(&limit, 1, &suppressed))
        log_error("udp:%s: cannot receive: %s; trying again", name_of(server, name),
                  strerror(-result));
    if (!timer_armed(&server->tick))
        timer_start(io_timers(server->io), &server->tick, io_now_ms(server->io) + RECEIVE_AGAIN_MS);
}

/* --- The end ---------------------------------------------------------------------------------- */

static bool quiet(const struct udp_flow *flow, int64_t now_ms)
{
    int64_t patience_ms = flow->coro || !flow->answered ? DRAIN_ANSWER_MS : DRAIN_QUIET_MS;
    return now_ms - flow->last_ms >= patience_ms;
}

static void end_flows(struct list *flows, bool all, int64_t now_ms)
{
    for (struct list *node = flows->next, *next; node != flows; node = next) {
        next = node->next;
        if (all || quiet(udp_flow_of(node), now_ms))
            udp_flow_end(udp_flow_of(node), L4_CANCELLED, (struct slice){0});
    }
}

static void tick(struct timer *timer)
{
    struct udp_server *server = timer->owner;
    int64_t now_ms = io_now_ms(server->io);
    bool over = now_ms >= server->drain_until_ms;
    if (!server->draining) {
        if (!server->given_up)
            receive(server);
        return;
    }
    end_flows(&server->fresh, over, now_ms);
    end_flows(&server->established, over, now_ms);
    bool receiving = io_op_in_flight(&server->receive);
    if (!server->flow_count && receiving)
        io_cancel(server->io, &server->receive);
    else if (!server->flow_count) {
        close_socket(server);
        return;
    }
    timer_start(io_timers(server->io), timer, now_ms + (server->flow_count ? TICK_MS : 1));
}

void udp_server_drain(struct udp_server *server, int64_t until_ms)
{
    if (server->fd < 0 || (server->draining && until_ms >= server->drain_until_ms))
        return;
    server->draining = true;
    server->drain_until_ms = until_ms;
    timer_start(io_timers(server->io), &server->tick, io_now_ms(server->io));
}

void udp_server_give_up(struct udp_server *server)
{
    server->given_up = true;
    if (io_op_in_flight(&server->receive))
        io_cancel(server->io, &server->receive);
}

void udp_server_abort(struct udp_server *server)
{
    udp_server_drain(server, io_now_ms(server->io));
}

bool udp_server_gone(const struct udp_server *server)
{
    return server->fd < 0 && !server->flow_count && !io_op_in_flight(&server->receive);
}

void udp_server_fini(struct udp_server *server)
{
    if (server->service)
        server->service->release(server->service);
    server->service = NULL;
    udp_sends_free(server);
    udp_table_fini(&server->table);
}
