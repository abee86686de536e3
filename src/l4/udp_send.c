/* Sending the datagrams of flows: see udp_flow.h. Nothing waits for a full socket, as nothing in
 * UDP would wait for a full queue of a router. */
#include "l4/udp_flow.h"

#include <errno.h>
#include <stdlib.h>

#include "base/counters.h"

enum { SPARE_MAX = 1024 };

/* One datagram on its way. */
struct udp_send {
    struct io_op op;
    struct iovec iov;
    struct udp_flow *flow; /* pinned */
    struct io_buf *buf;
    bool to_client;
    struct udp_send *next; /* in the server's spare ones */
    _Alignas(8) char control[UDP_CONTROL_ROOM];
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

static void sent(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct udp_send *send = op->owner;
    struct udp_flow *flow = send->flow;
    struct udp_server *server = flow->server;
    io_buf_release(server->io, send->buf);
    if (result < 0) {
        server->stats.dropped++;
        counters_add(COUNTER_UDP_DROPPED, 1);
        if (!send->to_client && !flow->ended && !passing(result))
            udp_flow_peer_failed(flow, result);
    }
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
    if (flow->server->any) {
        msg->msg_control = send->control;
        msg->msg_controllen = udp_write_source(&flow->entry.key.local, send->control);
    }
}

void udp_send(struct udp_flow *flow, struct io_buf *buf, bool to_client)
{
    struct udp_server *server = flow->server;
    struct udp_send *send = take(server);
    if (!send) {
        server->stats.dropped++;
        counters_add(COUNTER_UDP_DROPPED, 1);
        io_buf_release(server->io, buf);
        return;
    }
    send->flow = flow;
    send->buf = buf;
    send->to_client = to_client;
    send->iov = (struct iovec){buf->data, buf->len};
    send->op = (struct io_op){.kind = IO_OP_SEND_TO, .fd = flow->fd, .done = sent, .owner = send};
    send->op.msg =
        (struct msghdr){.msg_iov = &send->iov, .msg_iovlen = 1, .msg_flags = MSG_DONTWAIT};
    if (to_client)
        address_to_client(send, flow);
    flow->pins++;
    io_submit(server->io, &send->op);
}
