/* Datagrams on both back ends: the same tests run on io_uring and on epoll. */
#include "support/loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST = 65507, KEPT_MAX = 600 };

/* What was received. */
struct inbox {
    struct io_op op;
    unsigned count;
    size_t lens[KEPT_MAX];
    struct io_buf *held[KEPT_MAX];
    bool hold; /* keep the buffers */
    struct sockaddr_in source;
    struct in_addr to; /* IP_PKTINFO */
    uint32_t checksum;
    bool truncated;
    bool ended;
    int result;
};

static void take_control(struct inbox *inbox, struct msghdr *control)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(control); c; c = CMSG_NXTHDR(control, c)) {
        struct in_pktinfo info;
        if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO)
            continue;
        memcpy(&info, CMSG_DATA(c), sizeof(info));
        inbox->to = info.ipi_addr;
    }
}

static void inbox_done(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    struct inbox *inbox = op->owner;
    assert_false(inbox->ended);
    assert_int_equal(buf != NULL, result >= 0);
    assert_int_equal(io_op_in_flight(op), more);
    inbox->ended = !more;
    inbox->result = result;
    if (!buf)
        return;
    struct io_datagram datagram = io_datagram_of(op, buf);
    assert_int_equal(buf->len, result);
    if (op->msg.msg_namelen) {
        assert_int_equal(datagram.source_len, sizeof(inbox->source));
        memcpy(&inbox->source, datagram.source, sizeof(inbox->source));
    }
    take_control(inbox, &datagram.control);
    inbox->truncated |= datagram.truncated;
    inbox->checksum = checksum_add(inbox->checksum, buf->data, buf->len);
    if (inbox->hold)
        inbox->held[inbox->count] = buf;
    else
        io_buf_release(loop, buf);
    inbox->lens[inbox->count++] = buf->len;
}

static void begin_receiving(struct inbox *inbox, int fd, bool addresses)
{
    memset(inbox, 0, sizeof(*inbox));
    inbox->op = (struct io_op){.kind = IO_OP_RECV_FROM, .fd = fd, .done = inbox_done};
    inbox->op.owner = inbox;
    if (addresses)
        inbox->op.msg = (struct msghdr){.msg_namelen = 32,
                                        .msg_controllen = CMSG_SPACE(sizeof(struct in_pktinfo))};
    io_submit(loop, &inbox->op);
}

static void stop(struct inbox *inbox)
{
    io_cancel(loop, &inbox->op);
    turn_until(inbox->ended);
    assert_int_equal(inbox->result, -ECANCELED);
}

static void release_held(struct inbox *inbox)
{
    for (unsigned i = 0; i < inbox->count; i++)
        io_buf_release(loop, inbox->held[i]);
}

/* A bound UDP socket. */
static int open_udp(struct sockaddr_in *address)
{
    int on = 1;
    int bytes = 4 << 20;
    socklen_t len = sizeof(*address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &len), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    return fd;
}

static int connect_udp(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)to, sizeof(*to)), 0);
    return fd;
}

struct sending {
    struct io_op op;
    struct iovec iov;
    int result;
    bool ended;
};

static void sending_done(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    struct sending *sending = op->owner;
    assert_null(buf);
    assert_false(more);
    assert_false(sending->ended);
    sending->ended = true;
    sending->result = result;
}

static void begin_sending(struct sending *sending, int fd, void *data, size_t len,
                          struct sockaddr_in *to, int flags)
{
    memset(sending, 0, sizeof(*sending));
    sending->iov = (struct iovec){data, len};
    sending->op = (struct io_op){.kind = IO_OP_SEND_TO, .fd = fd, .done = sending_done};
    sending->op.owner = sending;
    sending->op.msg =
        (struct msghdr){.msg_iov = &sending->iov, .msg_iovlen = 1, .msg_flags = flags};
    if (to) {
        sending->op.msg.msg_name = to;
        sending->op.msg.msg_namelen = sizeof(*to);
    }
    io_submit(loop, &sending->op);
    assert_false(sending->ended);
}

static void receives_datagrams_with_their_addresses(void **state)
{
    (void)state;
    struct sockaddr_in address, client;
    static struct inbox inbox;
    int fd = open_udp(&address);
    int from = open_udp(&client);
    begin_receiving(&inbox, fd, true);
    loop_turn_idle();
    assert_int_equal(sendto(from, "hello", 5, 0, (void *)&address, sizeof(address)), 5);
    turn_until(inbox.count == 1);
    assert_int_equal(inbox.lens[0], 5);
    assert_int_equal(inbox.checksum, checksum_add(0, "hello", 5));
    assert_int_equal(inbox.source.sin_port, client.sin_port);
    assert_int_equal(inbox.source.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(inbox.to.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(sendto(from, "", 0, 0, (void *)&address, sizeof(address)), 0);
    assert_int_equal(sendto(from, "x", 1, 0, (void *)&address, sizeof(address)), 1);
    turn_until(inbox.count == 3);
    assert_int_equal(inbox.lens[1], 0);
    assert_int_equal(inbox.lens[2], 1);
    stop(&inbox);
    io_close_fd(loop, fd);
    close(from);
}

static void receives_the_largest_datagram_whole(void **state)
{
    (void)state;
    struct sockaddr_in address;
    static struct inbox inbox;
    static char data[LARGEST];
    for (unsigned i = 0; i < LARGEST; i++)
        data[i] = (char)(i * 7 + i / 251);
    int fd = open_udp(&address);
    int from = connect_udp(&address);
    begin_receiving(&inbox, fd, true);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(send(from, data, LARGEST, 0), LARGEST);
        turn_until(inbox.count == i);
        assert_int_equal(inbox.lens[i - 1], LARGEST);
    }
    uint32_t expected = 0;
    for (unsigned i = 0; i < 3; i++)
        expected = checksum_add(expected, data, LARGEST);
    assert_int_equal(inbox.checksum, expected);
    assert_false(inbox.truncated);
    stop(&inbox);
    io_close_fd(loop, fd);
    close(from);
}

static void receives_without_addresses(void **state)
{
    (void)state;
    struct sockaddr_in address;
    static struct inbox inbox;
    int fd = open_udp(&address);
    int from = connect_udp(&address);
    begin_receiving(&inbox, fd, false);
    assert_int_equal(send(from, "hello", 5, 0), 5);
    turn_until(inbox.count == 1);
    assert_int_equal(inbox.checksum, checksum_add(0, "hello", 5));
    stop(&inbox);
    io_close_fd(loop, fd);
    close(from);
}

/* More than the kernel is asked for at a time. */
static void receives_a_burst(void **state)
{
    (void)state;
    enum { BURST = 500 };
    struct sockaddr_in address;
    static struct inbox inbox;
    int fd = open_udp(&address);
    int from = connect_udp(&address);
    for (unsigned i = 0; i < BURST; i++)
        assert_int_equal(send(from, "0123456789", i % 10, 0), i % 10);
    begin_receiving(&inbox, fd, true);
    turn_until(inbox.count == BURST);
    for (unsigned i = 0; i < BURST; i++)
        assert_int_equal(inbox.lens[i], i % 10);
    stop(&inbox);
    io_close_fd(loop, fd);
    close(from);
}

static void waits_for_buffers(void **state)
{
    (void)state;
    enum { BURST = 20, BUFFERS = 4, BUFFER_BYTES = 70000 };
    struct sockaddr_in address;
    static struct inbox inbox;
    loop_reopen((struct io_options){.datagram_max_bytes = BUFFERS * BUFFER_BYTES});
    int fd = open_udp(&address);
    int from = connect_udp(&address);
    begin_receiving(&inbox, fd, true);
    inbox.hold = true;
    for (unsigned i = 0; i < BURST; i++)
        assert_int_equal(send(from, "hello", 5, 0), 5);
    turn_until(inbox.count == BUFFERS);
    loop_turn_idle();
    assert_int_equal(inbox.count, BUFFERS);
    assert_int_equal(io_stats(loop).datagrams_held, BUFFERS);
    release_held(&inbox);
    inbox.hold = false;
    turn_until(inbox.count == BURST);
    assert_int_equal(io_stats(loop).datagrams_held, 0);
    stop(&inbox);
    io_close_fd(loop, fd);
    close(from);
}

static void cancels_a_receive_that_waits_for_buffers(void **state)
{
    (void)state;
    struct sockaddr_in address;
    static struct inbox inbox;
    loop_reopen((struct io_options){.datagram_max_bytes = 1});
    int fd = open_udp(&address);
    int from = connect_udp(&address);
    begin_receiving(&inbox, fd, true);
    inbox.hold = true;
    assert_int_equal(send(from, "a", 1, 0), 1);
    assert_int_equal(send(from, "b", 1, 0), 1);
    turn_until(inbox.count == 1);
    loop_turn_idle();
    stop(&inbox);
    release_held(&inbox);
    io_close_fd(loop, fd);
    close(from);
}

static void cancelling_an_idle_receive_ends_it(void **state)
{
    (void)state;
    struct sockaddr_in address;
    static struct inbox inbox;
    int fd = open_udp(&address);
    begin_receiving(&inbox, fd, true);
    stop(&inbox); /* before the kernel has seen it */
    begin_receiving(&inbox, fd, true);
    loop_turn_idle();
    stop(&inbox);
    io_close_fd(loop, fd);
}

/* What the network reports ends the operation, and a new one goes on. */
static void reports_that_nobody_listens(void **state)
{
    (void)state;
    struct sockaddr_in address;
    static struct inbox inbox;
    struct sending sending;
    close(open_udp(&address));
    int fd = connect_udp(&address);
    begin_receiving(&inbox, fd, false);
    begin_sending(&sending, fd, "hello", 5, NULL, 0);
    turn_until(sending.ended && inbox.ended);
    assert_int_equal(sending.result, 5);
    assert_int_equal(inbox.result, -ECONNREFUSED);
    begin_receiving(&inbox, fd, false);
    loop_turn_idle();
    assert_false(inbox.ended);
    begin_sending(&sending, fd, "hello", 5, NULL, 0);
    turn_until(sending.ended && inbox.ended);
    assert_int_equal(inbox.result, -ECONNREFUSED);
    io_close_fd(loop, fd);
}

/* To two receivers in turns, in their order. */
static void sends_many_in_one_turn(void **state)
{
    (void)state;
    enum { COUNT = 100 };
    struct sockaddr_in address, first, second;
    static struct sending sendings[COUNT];
    static char data[COUNT];
    int fd = open_udp(&address);
    int receivers[2] = {open_udp(&first), open_udp(&second)};
    for (unsigned i = 0; i < COUNT; i++) {
        data[i] = (char)i;
        begin_sending(&sendings[i], fd, &data[i], 1, i / 7 % 2 ? &second : &first, 0);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        turn_until(sendings[i].ended);
        assert_int_equal(sendings[i].result, 1);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        char byte = -1;
        assert_int_equal(recv(receivers[i / 7 % 2], &byte, 1, 0), 1);
        assert_int_equal(byte, (char)i);
    }
    close(receivers[0]);
    close(receivers[1]);
    io_close_fd(loop, fd);
}

/* Until the kernel is entered. */
static void sends_what_the_message_has_become(void **state)
{
    (void)state;
    struct sockaddr_in address, to;
    struct sending sending, cancelled;
    char data[16];
    int fd = open_udp(&address);
    int receiver = open_udp(&to);
    begin_sending(&sending, fd, "hello", 5, &to, 0);
    begin_sending(&cancelled, fd, "x", 1, &to, 0);
    assert_true(io_op_unsent(&sending.op));
    struct iovec pieces[2] = {sending.iov, {" world", 6}};
    sending.op.msg.msg_iov = pieces;
    sending.op.msg.msg_iovlen = 2;
    io_cancel(loop, &cancelled.op);
    assert_false(io_op_unsent(&cancelled.op));
    turn_until(sending.ended && cancelled.ended);
    assert_false(io_op_unsent(&sending.op));
    assert_int_equal(sending.result, 11);
    assert_int_equal(cancelled.result, -ECANCELED);
    assert_int_equal(recv(receiver, data, sizeof(data), 0), 11);
    assert_memory_equal(data, "hello world", 11);
    assert_int_equal(recv(receiver, data, sizeof(data), MSG_DONTWAIT), -1);
    close(receiver);
    io_close_fd(loop, fd);
}

static void sends_empty_and_large_and_refuses_too_large_ones(void **state)
{
    (void)state;
    struct sockaddr_in address, to;
    struct sending empty, large, too_large, behind;
    static char data[LARGEST + 1];
    int fd = open_udp(&address);
    int receiver = open_udp(&to);
    begin_sending(&empty, fd, NULL, 0, &to, 0);
    begin_sending(&large, fd, data, LARGEST, &to, 0);
    begin_sending(&too_large, fd, data, LARGEST + 1, &to, 0);
    begin_sending(&behind, fd, "x", 1, &to, 0);
    turn_until(empty.ended && large.ended && too_large.ended && behind.ended);
    assert_int_equal(empty.result, 0);
    assert_int_equal(large.result, LARGEST);
    assert_int_equal(too_large.result, -EMSGSIZE);
    assert_int_equal(behind.result, 1);
    assert_int_equal(recv(receiver, data, sizeof(data), 0), 0);
    assert_int_equal(recv(receiver, data, sizeof(data), 0), LARGEST);
    assert_int_equal(recv(receiver, data, sizeof(data), 0), 1);
    close(receiver);
    io_close_fd(loop, fd);
}

/* A local socket's queue is full until its reader reads. */
static void waits_for_room_to_send(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    static struct sending sendings[COUNT];
    static char data[4096];
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    for (unsigned i = 0; i < COUNT; i++)
        begin_sending(&sendings[i], fds[0], data, sizeof(data), NULL, 0);
    loop_turn_idle();
    assert_true(sendings[0].ended);
    assert_false(sendings[COUNT - 1].ended);
    io_cancel(loop, &sendings[COUNT - 1].op);
    turn_until(sendings[COUNT - 1].ended);
    assert_int_equal(sendings[COUNT - 1].result, -ECANCELED);
    unsigned received = 0;
    while (received < COUNT - 1) {
        char byte;
        if (recv(fds[1], &byte, 1, MSG_DONTWAIT) >= 0)
            received++;
        else
            loop_turn(10);
    }
    for (unsigned i = 0; i < COUNT - 1; i++) {
        turn_until(sendings[i].ended);
        assert_int_equal(sendings[i].result, sizeof(data));
    }
    close(fds[1]);
    io_close_fd(loop, fds[0]);
}

static void does_not_wait_for_room_when_told_so(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    static struct sending sendings[COUNT];
    static char data[4096];
    int fds[2];
    unsigned failed = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        begin_sending(&sendings[i], fds[0], data, sizeof(data), NULL, MSG_DONTWAIT);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        turn_until(sendings[i].ended);
        assert_true(sendings[i].result == sizeof(data) || sendings[i].result == -EAGAIN);
        failed += sendings[i].result < 0;
    }
    assert_true(failed > 0 && failed < COUNT);
    close(fds[1]);
    io_close_fd(loop, fds[0]);
}

static void cancels_a_send_at_once(void **state)
{
    (void)state;
    struct sockaddr_in address;
    struct sending sending;
    int fd = open_udp(&address);
    begin_sending(&sending, fd, "x", 1, &address, 0);
    io_cancel(loop, &sending.op);
    turn_until(sending.ended);
    assert_true(sending.result == -ECANCELED || sending.result == 1);
    io_close_fd(loop, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(receives_datagrams_with_their_addresses),
        ON_BOTH(receives_the_largest_datagram_whole),
        ON_BOTH(receives_without_addresses),
        ON_BOTH(receives_a_burst),
        ON_BOTH(waits_for_buffers),
        ON_BOTH(cancels_a_receive_that_waits_for_buffers),
        ON_BOTH(cancelling_an_idle_receive_ends_it),
        ON_BOTH(reports_that_nobody_listens),
        ON_BOTH(sends_many_in_one_turn),
        ON_BOTH(sends_what_the_message_has_become),
        ON_BOTH(sends_empty_and_large_and_refuses_too_large_ones),
        ON_BOTH(waits_for_room_to_send),
        ON_BOTH(does_not_wait_for_room_when_told_so),
        ON_BOTH(cancels_a_send_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
