/* Sending the datagrams of flows: see udp_flow.h. Nothing waits for a full socket, as nothing in
 * UDP would wait for a full queue of a router. */
#include "l4/udp_flow.h"

#include <errno.h>
#include <stdlib.h>

#include "base/counters.h"

enum {
    SPARE_MAX = 1024,
    PIECES_MAX = 16, /* buffers of one run; more gain nothing */
};

/* One datagram on its way, or a run of them. */
struct udp_send {
    struct io_op op;
    struct udp_flow *flow; /* pinned */
    struct io_buf *bufs;   /* as many as the message has pieces; oldest first */
    struct io_buf *bufs_last;
    uint32_t segment; /* bytes of each datagram but the last, which may have fewer */
    uint32_t bytes;   /* of them all */
    bool to_client;
    struct udp_send *next; /* in the server's spare ones */
    _Alignas(8) char control[UDP_CONTROL_ROOM];
    struct iovec pieces[PIECES_MAX];
};

static struct udp_send *take(struct udp_server *server)
{
    struct udp_send *send = server->spare;
    if (!send)
        return malloc(sizeof(*send));
    server->spare = send->next;
    server->spare_count--;
    return send;
}

static void put(struct udp_server *server, struct udp_send *send)
{
    if (server->spare_count >= SPARE_MAX) {
        free(send);
        return;
    }
    send->next = server->spare;
    server->spare = send;
    server->spare_count++;
}

void udp_sends_free(struct udp_server *server)
{
    while (server->spare)
        free(take(server));
}

struct io_buf *udp_take_first(struct udp_server *server, struct io_buf *run, uint32_t segment)
{
    struct io_buf *first = io_buf_copy(run->data, segment);
    run->data += segment;
    run->len -= segment;
    if (!first)
        udp_count_dropped(server, 1);
    return first;
}

/* Does it concern only this datagram? */
static bool passing(int error)
{
    switch (error) {
    case -EAGAIN:
    case -ENOBUFS:
    case -ENOMEM:
    case -EMSGSIZE:
    case -EPERM: /* a packet filter */
        return true;
    default:
        return false;
    }
}

/* Might what was refused as a run be taken one by one? Where a segment is longer than the path
 * takes, or the device cannot do it. */
static bool refuses_runs(int error)
{
    return error == -EINVAL || error == -EMSGSIZE || error == -EIO || error == -ENOPROTOOPT;
}

/* One by one, for the kernel takes no such run. */
static void send_each(struct udp_flow *flow, struct io_buf *run, uint32_t segment, bool to_client)
{
    while (run->len > segment) {
        struct io_buf *first = udp_take_first(flow->server, run, segment);
        if (first)
            udp_send(flow, first, segment, to_client);
    }
    udp_send(flow, run, segment, to_client);
}

/* A flow whose run was refused sends none any more. What was sent behind that run in the same turn
 * overtakes it, this once. */
static void send_again(struct udp_send *send)
{
    struct udp_flow *flow = send->flow;
    flow->sends_runs = false;
    while (send->bufs) {
        struct io_buf *buf = send->bufs;
        send->bufs = buf->next;
        send_each(flow, buf, send->segment, send->to_client);
    }
}

static void release_bufs(struct udp_send *send)
{
    while (send->bufs) {
        struct io_buf *buf = send->bufs;
        send->bufs = buf->next;
        io_buf_release(send->flow->server->io, buf);
    }
}

static void sent(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct udp_send *send = op->owner;
    struct udp_flow *flow = send->flow;
    struct udp_server *server = flow->server;
    uint32_t count = udp_run_count(send->bytes, send->segment);
    if (flow->sends[send->to_client] == send)
        flow->sends[send->to_client] = NULL;
    if (count > 1 && refuses_runs(result)) {
        send_again(send);
    } else if (result < 0) {
        udp_count_dropped(server, count);
        if (!send->to_client && !flow->ended && !passing(result))
            udp_flow_peer_failed(flow, result);
    }
    release_bufs(send);
    put(server, send);
    udp_flow_unpin(flow);
}

/* To the client, from the address that it has sent to. */
static void address_to_client(struct udp_send *send, struct udp_flow *flow)
{
    struct msghdr *msg = &send->op.msg;
    send->op.fd = flow->server->fd;
    msg->msg_name = &flow->entry.key.client;
    msg->msg_namelen = udp_end_bytes(&flow->entry.key.client);
    if (flow->server->any)
        msg->msg_controllen = udp_write_source(&flow->entry.key.local, send->control);
}

/* Makes it the message's last piece, and of the message a run when it becomes several datagrams. */
static void add(struct udp_send *send, struct io_buf *buf)
{
    struct msghdr *msg = &send->op.msg;
    bool was_run = send->bytes > send->segment;
    if (send->bufs)
        send->bufs_last->next = buf;
    else
        send->bufs = buf;
    send->bufs_last = buf;
    buf->next = NULL;
    send->pieces[msg->msg_iovlen++] = (struct iovec){buf->data, buf->len};
    send->bytes += buf->len;
    if (!was_run && send->bytes > send->segment)
        msg->msg_controllen +=
            udp_write_segment(send->segment, send->control + msg->msg_controllen);
    msg->msg_control = msg->msg_controllen ? send->control : NULL;
}

static void begin(struct udp_flow *flow, struct io_buf *buf, uint32_t segment, bool to_client)
{
    struct udp_server *server = flow->server;
    struct udp_send *send = take(server);
    if (!send) {
        udp_count_dropped(server, udp_run_count(buf->len, segment));
        io_buf_release(server->io, buf);
        return;
    }
    send->flow = flow;
    send->bufs = NULL;
    send->segment = segment;
    send->bytes = 0;
    send->to_client = to_client;
    send->op = (struct io_op){.kind = IO_OP_SEND_TO, .fd = flow->fd, .done = sent, .owner = send};
    send->op.msg = (struct msghdr){.msg_iov = send->pieces, .msg_flags = MSG_DONTWAIT};
    if (to_client)
        address_to_client(send, flow);
    add(send, buf);
    flow->pins++;
    flow->sends[to_client] = send;
    io_submit(server->io, &send->op);
}

/* May the buffer follow in the same run? Only the last datagram may be short, and none is empty. */
static bool continues(const struct udp_send *send, const struct io_buf *buf, uint32_t segment)
{
    bool whole = send->segment && send->bytes % send->segment == 0;
    bool fits = segment == send->segment || (buf->len <= segment && buf->len < send->segment);
    return whole && fits && buf->len && io_op_unsent(&send->op) &&
           send->op.msg.msg_iovlen < PIECES_MAX && send->bytes + buf->len <= UDP_RUN_BYTES_MAX &&
           udp_run_count(send->bytes + buf->len, send->segment) <= UDP_RUN_MAX;
}

void udp_send(struct udp_flow *flow, struct io_buf *buf, uint32_t segment, bool to_client)
{
    struct udp_send *last = flow->sends[to_client];
    uint32_t count = udp_run_count(buf->len, segment);
    if (count > 1 && (count > UDP_RUN_MAX || !flow->sends_runs))
        send_each(flow, buf, segment, to_client);
    else if (last && flow->sends_runs && continues(last, buf, segment))
        add(last, buf);
    else
        begin(flow, buf, segment, to_client);
}
