/* Every kind of operation on both back ends: the same tests run on io_uring and on epoll. */
#include "base/clock.h"
#include "support/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER_BYTES = 4096 };

/* An operation with what was heard of it. */
struct probe {
    struct io_op op;
    int result;          /* of the last call of done */
    int first_error;     /* of the first call with a negative result */
    unsigned calls;      /* of done */
    bool ended;          /* done was called with more == false */
    uint64_t bytes;      /* received */
    struct io_buf *kept; /* buffers that the test holds */
    bool keep;           /* hold buffers instead of releasing them */
    bool cancel_at_once; /* cancel inside the first done */
    uint32_t checksum;
    int accepted[4096];
    unsigned accepted_count;
};

static bool inside_call; /* of io_submit or io_cancel: done must not be called */

static void probe_done(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    struct probe *probe = op->owner;
    assert_false(inside_call);
    assert_false(probe->ended);
    assert_int_equal(io_op_in_flight(op), more);
    assert_int_equal(buf != NULL, op->kind == IO_OP_RECV && result > 0);
    probe->calls++;
    probe->result = result;
    probe->ended = !more;
    if (result < 0 && !probe->first_error)
        probe->first_error = result;
    if (op->kind == IO_OP_ACCEPT && result >= 0)
        probe->accepted[probe->accepted_count++] = result;
    if (buf) {
        assert_int_equal(buf->len, result);
        probe->bytes += (unsigned)result;
        probe->checksum = checksum_add(probe->checksum, buf->data, buf->len);
        if (probe->keep) {
            buf->next = probe->kept;
            probe->kept = buf;
        } else {
            io_buf_release(loop, buf);
        }
    }
    if (probe->cancel_at_once && more)
        io_cancel(loop, op);
}

static void release_kept(struct probe *probe)
{
    while (probe->kept) {
        struct io_buf *buf = probe->kept;
        probe->kept = buf->next;
        io_buf_release(loop, buf);
    }
}

static void begin(struct probe *probe, enum io_op_kind kind, int fd)
{
    probe->op.kind = kind;
    probe->op.fd = fd;
    probe->op.done = probe_done;
    probe->op.owner = probe;
    probe->ended = false;
    probe->calls = 0;
    probe->result = 0;
    probe->first_error = 0;
    inside_call = true;
    io_submit(loop, &probe->op);
    inside_call = false;
    assert_true(io_op_in_flight(&probe->op));
}

static void begin_send(struct probe *probe, int fd, struct iovec *iov, size_t count)
{
    probe->op.msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = count};
    begin(probe, IO_OP_SEND, fd);
}

static void cancel(struct probe *probe)
{
    inside_call = true;
    io_cancel(loop, &probe->op);
    inside_call = false;
}

static void end_by_cancel(struct probe *probe)
{
    cancel(probe);
    turn_until(probe->ended);
    assert_int_equal(probe->result, -ECANCELED);
}

static int setup(void **state)
{
    int result = loop_setup(state);
    if (result == 0)
        loop_reopen((struct io_options){.buffer_bytes = BUFFER_BYTES});
    return result;
}

static void bound_buffers(uint64_t count)
{
    loop_reopen((struct io_options){.buffer_bytes = BUFFER_BYTES,
                                    .buffer_max_bytes = count * BUFFER_BYTES});
}

static void close_both(const int fds[2])
{
    io_close_fd(loop, fds[0]);
    io_close_fd(loop, fds[1]);
}

static void names_its_backend(void **state)
{
    (void)state;
    assert_string_equal(io_backend_name(loop), loop_kind == IO_KIND_URING ? "io_uring" : "epoll");
}

static void receives_what_arrives_and_the_end(void **state)
{
    (void)state;
    int fds[2];
    open_local_pair(fds);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    loop_turn_idle();
    assert_int_equal(recv.calls, 0);
    for (unsigned round = 1; round <= 3; round++) {
        assert_int_equal(write(fds[1], "hello", 5), 5);
        turn_until(recv.bytes == round * 5);
        assert_int_equal(recv.calls, round);
        assert_false(recv.ended);
    }
    assert_int_equal(write(fds[1], "bye", 3), 3);
    close(fds[1]);
    turn_until(recv.ended);
    assert_int_equal(recv.bytes, 18);
    assert_int_equal(recv.result, 0);
    io_close_fd(loop, fds[0]);
}

/* The end of the stream comes together with data, before the receive is even armed. */
static void receives_data_and_end_that_were_there_before(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    assert_int_equal(write(fds[1], "hello", 5), 5);
    assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    turn_until(recv.ended);
    assert_int_equal(recv.bytes, 5);
    assert_int_equal(recv.result, 0);
    close_both(fds);
}

static void reports_a_reset(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    loop_turn_idle();
    close_by_reset(fds[1]);
    turn_until(recv.ended);
    assert_int_equal(recv.result, -ECONNRESET);
    struct iovec iov = {"x", 1};
    struct probe send = {0};
    begin_send(&send, fds[0], &iov, 1);
    turn_until(send.ended);
    assert_true(send.result == -EPIPE || send.result == -ECONNRESET);
    io_close_fd(loop, fds[0]);
}

static void receive_of_a_bad_descriptor_fails(void **state)
{
    (void)state;
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, -1);
    turn_until(recv.ended);
    assert_int_equal(recv.result, -EBADF);
}

static void a_cancelled_receive_loses_nothing(void **state)
{
    (void)state;
    int fds[2];
    open_local_pair(fds);
    struct probe recv = {.cancel_at_once = true};
    char block[BUFFER_BYTES * 4];
    memset(block, 'x', sizeof(block));
    size_t sent = 0;
    for (unsigned round = 0; round < 50; round++) {
        ssize_t count = write(fds[1], block, 1 + (size_t)rand() % sizeof(block));
        sent += count > 0 ? (size_t)count : 0;
        begin(&recv, IO_OP_RECV, fds[0]);
        turn_until(recv.ended);
        assert_int_equal(recv.result, -ECANCELED);
        assert_true(recv.calls >= 2);
    }
    recv.cancel_at_once = false;
    close(fds[1]);
    begin(&recv, IO_OP_RECV, fds[0]);
    turn_until(recv.ended);
    assert_int_equal(recv.result, 0);
    assert_int_equal(recv.bytes, sent);
    io_close_fd(loop, fds[0]);
}

static void cancelling_an_idle_receive_ends_it(void **state)
{
    (void)state;
    int fds[2];
    open_local_pair(fds);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    cancel(&recv); /* before the kernel has seen it */
    turn_until(recv.ended);
    assert_int_equal(recv.result, -ECANCELED);
    begin(&recv, IO_OP_RECV, fds[0]);
    loop_turn_idle();
    end_by_cancel(&recv);
    cancel(&recv); /* harmless */
    begin(&recv, IO_OP_RECV, fds[0]);
    assert_int_equal(write(fds[1], "again", 5), 5);
    turn_until(recv.bytes == 5);
    end_by_cancel(&recv);
    close_both(fds);
}

/* A large message, many pieces, to a reader that takes it in small bites. */
static void send_all_slowly(const int fds[2])
{
    enum { PIECES = 16, PIECE_BYTES = 100000 };
    char *data = malloc(PIECES * PIECE_BYTES);
    struct iovec iov[PIECES];
    for (size_t i = 0; i < PIECES * PIECE_BYTES; i++)
        data[i] = (char)(i * 7 + i / 251);
    for (unsigned i = 0; i < PIECES; i++)
        iov[i] = (struct iovec){data + (size_t)i * PIECE_BYTES, PIECE_BYTES};
    uint32_t expected = checksum_add(0, data, PIECES * PIECE_BYTES);

    struct probe send = {0};
    begin_send(&send, fds[0], iov, PIECES);
    loop_turn_idle();
    uint32_t sum = 0;
    size_t total = 0;
    int64_t give_up_ms = clock_now_ms() + PATIENCE_MS;
    while (total < PIECES * PIECE_BYTES) {
        char bite[7001];
        assert_int_equal(io_turn(loop, 0), 0);
        ssize_t count = recv(fds[1], bite, sizeof(bite), MSG_DONTWAIT);
        assert_true(count != 0 && clock_now_ms() < give_up_ms);
        if (count < 0)
            continue;
        sum = checksum_add(sum, bite, (size_t)count);
        total += (size_t)count;
    }
    turn_until(send.ended);
    assert_int_equal(send.calls, 1);
    assert_int_equal(send.result, PIECES * PIECE_BYTES);
    assert_int_equal(sum, expected);
    free(data);
    close_both(fds);
}

static void sends_all_to_a_slow_reader(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    send_all_slowly(fds);
    open_local_pair(fds);
    send_all_slowly(fds);
}

static void sends_all_to_a_slow_reader_that_has_said_fin(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    shutdown(fds[1], SHUT_WR);
    send_all_slowly(fds);
    open_local_pair(fds);
    shutdown(fds[1], SHUT_WR);
    send_all_slowly(fds);
}

static void sends_an_empty_message(void **state)
{
    (void)state;
    int fds[2];
    open_local_pair(fds);
    struct probe send = {0};
    begin_send(&send, fds[0], NULL, 0);
    turn_until(send.ended);
    assert_int_equal(send.result, 0);
    close_both(fds);
}

static void cancels_a_send_that_is_stuck(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    size_t bytes = 32 << 20;
    char *data = calloc(1, bytes);
    struct iovec iov = {data, bytes};
    struct probe send = {0};
    begin_send(&send, fds[0], &iov, 1);
    loop_turn_idle();
    assert_false(send.ended);
    end_by_cancel(&send);
    free(data);
    close_both(fds);
}

static void a_send_that_is_given_up_at_once_is_tried(void **state)
{
    (void)state;
    int fds[2];
    char got[8] = "";
    open_tcp_pair(fds);
    struct iovec iov = {"hello", 5};
    struct probe send = {0};
    begin_send(&send, fds[0], &iov, 1);
    cancel(&send);
    turn_until(send.ended);
    assert_int_equal(send.result, 5);
    assert_int_equal(read(fds[1], got, sizeof(got)), 5);
    assert_string_equal(got, "hello");
    close_both(fds);
}

static void a_stuck_send_ends_when_the_peer_goes(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    size_t bytes = 32 << 20;
    char *data = calloc(1, bytes);
    struct iovec iov = {data, bytes};
    struct probe send = {0};
    begin_send(&send, fds[0], &iov, 1);
    loop_turn_idle();
    close(fds[1]); /* unread data: a reset */
    turn_until(send.ended);
    assert_true(send.result == -ECONNRESET || send.result == -EPIPE);
    free(data);
    io_close_fd(loop, fds[0]);
}

static void refused_connects_fail(void **state)
{
    (void)state;
    struct sockaddr_in address;
    close(open_listener(&address)); /* a port on which nobody listens */
    int fd = open_socket();
    struct probe connecting = {0};
    connecting.op.connect.address = (struct sockaddr *)&address;
    connecting.op.connect.address_len = sizeof(address);
    begin(&connecting, IO_OP_CONNECT, fd);
    turn_until(connecting.ended);
    assert_int_equal(connecting.result, -ECONNREFUSED);
    io_close_fd(loop, fd);
}

/* A listener whose backlog is full leaves further connects hanging. */
static void cancels_a_connect_that_hangs(void **state)
{
    (void)state;
    enum { CONNECTS = 8 };
    struct sockaddr_in address;
    int listener = open_listener(&address);
    assert_int_equal(listen(listener, 0), 0);
    static struct probe connecting[CONNECTS];
    memset(connecting, 0, sizeof(connecting));
    for (unsigned i = 0; i < CONNECTS; i++) {
        connecting[i].op.connect.address = (struct sockaddr *)&address;
        connecting[i].op.connect.address_len = sizeof(address);
        begin(&connecting[i], IO_OP_CONNECT, open_socket());
    }
    loop_turn_idle();
    assert_false(connecting[CONNECTS - 1].ended);
    end_by_cancel(&connecting[CONNECTS - 1]);
    for (unsigned i = 0; i < CONNECTS; i++) {
        cancel(&connecting[i]);
        turn_until(connecting[i].ended);
        io_close_fd(loop, connecting[i].op.fd);
    }
    io_close_fd(loop, listener);
}

static void connects_to_a_unix_socket(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* Autobind gives a free abstract name. */
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(sa_family_t);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    len = sizeof(address);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(listener, 16), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    static struct probe connecting, accepting;
    connecting = accepting = (struct probe){0};
    connecting.op.connect.address = (struct sockaddr *)&address;
    connecting.op.connect.address_len = len;
    begin(&accepting, IO_OP_ACCEPT, listener);
    begin(&connecting, IO_OP_CONNECT, fd);
    turn_until(connecting.ended && accepting.accepted_count == 1);
    assert_int_equal(connecting.result, 0);
    end_by_cancel(&accepting);
    io_close_fd(loop, accepting.accepted[0]);
    io_close_fd(loop, fd);
    io_close_fd(loop, listener);
}

static void polls_once(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
    struct probe in = {0}, out = {0};
    in.op.events = POLLIN;
    out.op.events = POLLOUT;
    begin(&in, IO_OP_POLL, pipes[0]);
    begin(&out, IO_OP_POLL, pipes[1]);
    turn_until(out.ended);
    assert_int_equal(out.result, POLLOUT);
    assert_false(in.ended);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    turn_until(in.ended);
    assert_int_equal(in.result, POLLIN);
    begin(&in, IO_OP_POLL, pipes[0]); /* still readable: nothing was read */
    turn_until(in.ended);
    assert_int_equal(in.result, POLLIN);
    char byte;
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    begin(&in, IO_OP_POLL, pipes[0]);
    loop_turn_idle();
    assert_false(in.ended);
    end_by_cancel(&in);
    begin(&in, IO_OP_POLL, pipes[0]);
    close(pipes[1]);
    turn_until(in.ended);
    assert_true(in.result & POLLHUP);
    close(pipes[0]);
}

static void a_poll_ends_when_the_peer_hangs_up(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    struct probe poll = {0};
    begin(&poll, IO_OP_POLL, fds[0]); /* for nothing */
    loop_turn_idle();
    assert_false(poll.ended);
    assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
    turn_until(poll.ended);
    assert_true(poll.result & POLLRDHUP);
    poll.op.events = POLLOUT;
    begin(&poll, IO_OP_POLL, fds[0]);
    turn_until(poll.ended);
    assert_int_equal(poll.result & POLLOUT, POLLOUT);
    close_both(fds);
}

/* A library opens, polls and closes descriptors without telling the loop; numbers are reused. */
static void polls_descriptors_that_others_close(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        int pipes[2];
        assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
        struct probe in = {0};
        in.op.events = POLLIN;
        begin(&in, IO_OP_POLL, pipes[0]);
        if (round % 2) {
            assert_int_equal(write(pipes[1], "x", 1), 1);
            turn_until(in.ended);
            assert_int_equal(in.result, POLLIN);
        } else {
            loop_turn_idle();
            end_by_cancel(&in);
        }
        close(pipes[0]);
        close(pipes[1]);
    }
}

static void reads_a_file(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    fputs("0123456789", file);
    fflush(file);
    char text[16] = "";
    struct probe read = {0};
    read.op.read.data = text;
    read.op.read.len = 4;
    read.op.read.offset = 3;
    begin(&read, IO_OP_READ, fileno(file));
    turn_until(read.ended);
    assert_int_equal(read.result, 4);
    assert_string_equal(text, "3456");
    read.op.read.offset = 8;
    begin(&read, IO_OP_READ, fileno(file));
    turn_until(read.ended);
    assert_int_equal(read.result, 2);
    read.op.read.offset = 10;
    begin(&read, IO_OP_READ, fileno(file));
    turn_until(read.ended);
    assert_int_equal(read.result, 0);
    fclose(file);
}

/* Receive, stuck send and poll at once on one descriptor. */
static void several_operations_share_a_descriptor(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    size_t bytes = 32 << 20;
    char *data = calloc(1, bytes);
    struct iovec iov = {data, bytes};
    struct probe recv = {0}, send = {0}, poll = {0};
    poll.op.events = POLLIN;
    begin(&recv, IO_OP_RECV, fds[0]);
    begin_send(&send, fds[0], &iov, 1);
    begin(&poll, IO_OP_POLL, fds[0]);
    loop_turn_idle();
    assert_false(send.ended || poll.ended);
    assert_int_equal(write(fds[1], "hello", 5), 5);
    turn_until(recv.bytes == 5 && poll.ended);
    assert_int_equal(poll.result & POLLIN, POLLIN);
    assert_false(send.ended || recv.ended);
    end_by_cancel(&recv);
    char *sink = malloc(1 << 20);
    int64_t give_up_ms = clock_now_ms() + PATIENCE_MS;
    for (size_t total = 0; total < bytes;) {
        ssize_t count = read(fds[1], sink, 1 << 20);
        total += count > 0 ? (size_t)count : 0;
        assert_int_equal(io_turn(loop, 0), 0);
        assert_true(clock_now_ms() < give_up_ms);
    }
    turn_until(send.ended);
    assert_int_equal(send.result, (int)bytes);
    free(sink);
    free(data);
    close_both(fds);
}

/* More receivers than buffers: whoever holds them delays the rest, and nothing is lost. */
static void receives_wait_for_buffers(void **state)
{
    (void)state;
    enum { PAIRS = 8, BUFFERS = 2, MESSAGE = 100 };
    bound_buffers(BUFFERS);
    int fds[PAIRS][2];
    static struct probe recv[PAIRS];
    memset(recv, 0, sizeof(recv));
    char message[MESSAGE] = "";
    for (unsigned i = 0; i < PAIRS; i++) {
        open_local_pair(fds[i]);
        recv[i].keep = true;
        begin(&recv[i], IO_OP_RECV, fds[i][0]);
    }
    for (unsigned i = 0; i < PAIRS; i++)
        assert_int_equal(write(fds[i][1], message, MESSAGE), MESSAGE);
    unsigned arrived = 0;
    while (arrived < PAIRS) {
        turn_until(io_stats(loop).buffers_held == BUFFERS || arrived == PAIRS);
        loop_turn_idle();
        assert_int_equal(io_stats(loop).buffers_allocated, BUFFERS);
        for (unsigned i = 0; i < PAIRS; i++) {
            arrived += recv[i].kept != NULL;
            release_kept(&recv[i]);
        }
    }
    assert_true(io_stats(loop).buffer_waits > 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        assert_int_equal(recv[i].bytes, MESSAGE);
        assert_false(recv[i].ended);
        end_by_cancel(&recv[i]);
        close_both(fds[i]);
    }
}

static void a_parked_receive_can_be_cancelled(void **state)
{
    (void)state;
    bound_buffers(1);
    int first[2], second[2];
    open_local_pair(first);
    open_local_pair(second);
    struct probe holder = {.keep = true}, parked = {0};
    begin(&holder, IO_OP_RECV, first[0]);
    assert_int_equal(write(first[1], "x", 1), 1);
    turn_until(holder.kept);
    begin(&parked, IO_OP_RECV, second[0]);
    assert_int_equal(write(second[1], "y", 1), 1);
    turn_until(io_stats(loop).buffer_waits > 0);
    assert_int_equal(parked.calls, 0);
    end_by_cancel(&parked);
    release_kept(&holder);
    begin(&parked, IO_OP_RECV, second[0]);
    turn_until(parked.bytes == 1);
    end_by_cancel(&parked);
    end_by_cancel(&holder);
    close_both(first);
    close_both(second);
}

#ifndef __SANITIZE_ADDRESS__ /* whose allocator ends the program */

static void limit_memory(struct rlimit *before, uint64_t bytes_more)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    assert_int_equal(getrlimit(RLIMIT_AS, before), 0);
    struct rlimit limit = {.rlim_cur = pages * 4096 + bytes_more, .rlim_max = before->rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

static void a_receive_waits_for_memory_without_spinning(void **state)
{
    (void)state;
    enum { LARGE = 32 << 20, LOOK_MS = 200, TURNS_MAX = 100 };
    loop_reopen(
        (struct io_options){.buffer_bytes = LARGE, .buffer_max_bytes = UINT64_C(4) * LARGE});
    struct rlimit before;
    limit_memory(&before, LARGE / 2);
    int fds[2];
    open_local_pair(fds);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    assert_int_equal(write(fds[1], "x", 1), 1);
    uint64_t turns = io_stats(loop).turns;
    int64_t began_ms = clock_now_ms();
    while (clock_now_ms() - began_ms < LOOK_MS)
        io_turn(loop, LOOK_MS);
    assert_true(io_stats(loop).turns - turns < TURNS_MAX);
    assert_true(io_stats(loop).buffer_waits > 0);
    assert_int_equal(recv.calls, 0);

    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    began_ms = clock_now_ms();
    for (unsigned i = 0; i < 5 && !recv.bytes; i++)
        io_turn(loop, 60000);
    assert_int_equal(recv.bytes, 1);
    assert_true(clock_now_ms() - began_ms < 30000); /* nothing else has ended the wait */
    end_by_cancel(&recv);
    close_both(fds);
}

#endif

/* A burst that takes far more buffers than the ring holds, which the pool gives back later. */
static void the_pool_grows_on_demand_and_shrinks_again(void **state)
{
    (void)state;
    enum { PAIRS = 300 };
    static int fds[PAIRS][2];
    static struct probe recv[PAIRS];
    memset(recv, 0, sizeof(recv));
    for (unsigned i = 0; i < PAIRS; i++) {
        open_local_pair(fds[i]);
        recv[i].keep = true;
        begin(&recv[i], IO_OP_RECV, fds[i][0]);
    }
    loop_turn_idle();
    assert_true(io_stats(loop).buffers_allocated < PAIRS); /* idle ones hold none */
    for (unsigned i = 0; i < PAIRS; i++)
        assert_int_equal(write(fds[i][1], "x", 1), 1);
    turn_until(io_stats(loop).buffers_held == PAIRS);
    assert_int_equal(io_stats(loop).buffer_waits, 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        release_kept(&recv[i]);
        end_by_cancel(&recv[i]);
        close_both(fds[i]);
    }
    uint64_t at_peak = io_stats(loop).buffers_allocated;
    assert_true(at_peak >= PAIRS);
    io_trim(loop); /* until now they were in use */
    assert_true(io_trim(loop));
    while (io_trim(loop))
        ;
    assert_true(io_stats(loop).buffers_allocated <= at_peak / 2);
}

/* What is received in buffers whose memory was given back meanwhile, before and between. */
static void dry_buffers_lose_nothing(void **state)
{
    (void)state;
    enum { LEN = 300000 };
    static char bytes[LEN];
    loop_reopen((struct io_options){.buffer_bytes = 32768});
    for (unsigned i = 0; i < LEN; i++)
        bytes[i] = (char)(i * 7919 >> 8);
    int fds[2];
    open_tcp_pair(fds);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    for (size_t sent = 0; sent < LEN; io_dry(loop)) {
        ssize_t count = write(fds[1], bytes + sent, LEN - sent);
        io_dry(loop);
        io_dry(loop); /* none was filled since */
        loop_turn(1);
        sent += count > 0 ? (size_t)count : 0;
    }
    turn_until(recv.bytes == LEN);
    assert_int_equal(recv.checksum, checksum_add(0, bytes, LEN));
    end_by_cancel(&recv);
    close_both(fds);
}

static void accepts_many_connections(void **state)
{
    (void)state;
    enum { CLIENTS = 400 };
    struct sockaddr_in address;
    int listener = open_listener(&address);
    fcntl(listener, F_SETFL, 0); /* a blocking one will do */
    static struct probe accepting, connecting[CLIENTS], recv[CLIENTS];
    accepting = (struct probe){0};
    memset(connecting, 0, sizeof(connecting));
    memset(recv, 0, sizeof(recv));
    begin(&accepting, IO_OP_ACCEPT, listener);
    for (unsigned i = 0; i < CLIENTS; i++) {
        connecting[i].op.connect.address = (struct sockaddr *)&address;
        connecting[i].op.connect.address_len = sizeof(address);
        begin(&connecting[i], IO_OP_CONNECT, open_socket());
    }
    turn_until(accepting.accepted_count == CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++) {
        int fd = accepting.accepted[i];
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        turn_until(connecting[i].ended);
        assert_int_equal(connecting[i].result, 0);
        begin(&recv[i], IO_OP_RECV, fd);
        assert_int_equal(write(connecting[i].op.fd, "ping", 4), 4);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        turn_until(recv[i].bytes == 4);
        io_close_fd(loop, connecting[i].op.fd);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        turn_until(recv[i].ended);
        assert_int_equal(recv[i].result, 0);
        io_close_fd(loop, recv[i].op.fd);
    }
    end_by_cancel(&accepting);
    io_close_fd(loop, listener);
}

/* Without free descriptors the accept ends, and goes on when it is submitted again. */
static void accept_reports_that_descriptors_ran_out(void **state)
{
    (void)state;
    struct sockaddr_in address;
    int listener = open_listener(&address);
    int client = open_socket();
    static struct probe accepting;
    accepting = (struct probe){0};

    struct rlimit limit, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    begin(&accepting, IO_OP_ACCEPT, listener);
    connect(client, (struct sockaddr *)&address, sizeof(address));
    turn_until(accepting.ended);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(accepting.result, -EMFILE);
    assert_int_equal(accepting.accepted_count, 0);

    begin(&accepting, IO_OP_ACCEPT, listener);
    int second = open_socket();
    connect(second, (struct sockaddr *)&address, sizeof(address));
    turn_until(accepting.accepted_count >= 1);
    end_by_cancel(&accepting);
    for (unsigned i = 0; i < accepting.accepted_count; i++)
        io_close_fd(loop, accepting.accepted[i]);
    io_close_fd(loop, second);
    io_close_fd(loop, client);
    io_close_fd(loop, listener);
}

static void a_closed_descriptor_is_really_closed(void **state)
{
    (void)state;
    int fds[2];
    open_tcp_pair(fds);
    struct probe recv = {0};
    begin(&recv, IO_OP_RECV, fds[0]);
    io_close_fd(loop, fds[1]);
    turn_until(recv.ended);
    assert_int_equal(recv.result, 0);
    io_close_fd(loop, fds[0]);
}

struct alarm_probe {
    struct timer timer;
    int64_t fired_ms;
};

static void note_time(struct timer *timer)
{
    struct alarm_probe *alarm_probe = timer->owner;
    alarm_probe->fired_ms = io_now_ms(loop);
}

static void the_wait_ends_for_a_timer(void **state)
{
    (void)state;
    struct alarm_probe alarm_probe = {0};
    timer_init(&alarm_probe.timer, note_time, &alarm_probe);
    int64_t at_ms = io_now_ms(loop) + 30;
    timer_start(io_timers(loop), &alarm_probe.timer, at_ms);
    int64_t give_up_ms = clock_now_ms() + PATIENCE_MS;
    while (!alarm_probe.fired_ms && clock_now_ms() < give_up_ms)
        assert_int_equal(io_turn(loop, -1), 0);
    assert_true(alarm_probe.fired_ms >= at_ms);
    assert_true(alarm_probe.fired_ms < at_ms + PATIENCE_MS / 2);
}

static void take_a_second(struct timer *timer)
{
    int64_t until_ms = clock_now_ms() + 1000;
    (void)timer;
    while (clock_now_ms() < until_ms)
        continue;
}

static void a_long_callback_holds_no_timer_up_twice(void **state)
{
    (void)state;
    struct alarm_probe alarm_probe = {0};
    struct timer busy;
    int64_t now_ms = io_now_ms(loop);
    timer_init(&busy, take_a_second, NULL);
    timer_init(&alarm_probe.timer, note_time, &alarm_probe);
    timer_start(io_timers(loop), &busy, now_ms);
    timer_start(io_timers(loop), &alarm_probe.timer, now_ms + 1050);
    while (!alarm_probe.fired_ms)
        assert_int_equal(io_turn(loop, -1), 0);
    assert_in_range(alarm_probe.fired_ms - now_ms, 1050, 1900);
}

static void the_wait_is_bounded_by_the_caller(void **state)
{
    (void)state;
    int64_t start_ms = clock_now_ms();
    assert_int_equal(io_turn(loop, 0), 0);
    /* A ring that was just closed may interrupt a wait or two. */
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(io_turn(loop, 20), 0);
    assert_true(clock_now_ms() - start_ms >= 20);
    assert_true(clock_now_ms() - start_ms < PATIENCE_MS / 2);
}

/* One connection that never stops sending must not keep the others from being served. */
static void a_busy_descriptor_does_not_starve_others(void **state)
{
    (void)state;
    int busy[2], calm[2];
    open_tcp_pair(busy);
    open_tcp_pair(calm);
    struct probe flood = {0}, quiet = {0};
    begin(&flood, IO_OP_RECV, busy[0]);
    begin(&quiet, IO_OP_RECV, calm[0]);
    char block[65536] = "";
    for (unsigned round = 1; round <= 200; round++) {
        while (write(busy[1], block, sizeof(block)) > 0)
            ;
        assert_int_equal(write(calm[1], "x", 1), 1);
        for (unsigned i = 0; i < 20 && quiet.bytes < round; i++)
            assert_int_equal(io_turn(loop, 100), 0);
        assert_int_equal(quiet.bytes, round);
    }
    end_by_cancel(&flood);
    end_by_cancel(&quiet);
    close_both(busy);
    close_both(calm);
}

static void auto_takes_what_there_is(void **state)
{
    (void)state;
    struct io_options options = {.kind = IO_KIND_AUTO};
    assert_int_equal(io_create(&loop, &options), 0);
    assert_non_null(io_backend_name(loop));
    io_destroy(loop);
}

#undef LOOP_TEST_ON
#define LOOP_TEST_ON(index, name, test)                                                            \
    {                                                                                              \
#test " on " name, test, setup, loop_teardown, &loop_kinds[index]                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(names_its_backend),
        ON_BOTH(receives_what_arrives_and_the_end),
        ON_BOTH(receives_data_and_end_that_were_there_before),
        ON_BOTH(reports_a_reset),
        ON_BOTH(receive_of_a_bad_descriptor_fails),
        ON_BOTH(a_cancelled_receive_loses_nothing),
        ON_BOTH(cancelling_an_idle_receive_ends_it),
        ON_BOTH(sends_all_to_a_slow_reader),
        ON_BOTH(sends_all_to_a_slow_reader_that_has_said_fin),
        ON_BOTH(sends_an_empty_message),
        ON_BOTH(cancels_a_send_that_is_stuck),
        ON_BOTH(a_send_that_is_given_up_at_once_is_tried),
        ON_BOTH(a_stuck_send_ends_when_the_peer_goes),
        ON_BOTH(refused_connects_fail),
        ON_BOTH(cancels_a_connect_that_hangs),
        ON_BOTH(connects_to_a_unix_socket),
        ON_BOTH(polls_once),
        ON_BOTH(a_poll_ends_when_the_peer_hangs_up),
        ON_BOTH(polls_descriptors_that_others_close),
        ON_BOTH(reads_a_file),
        ON_BOTH(several_operations_share_a_descriptor),
        ON_BOTH(receives_wait_for_buffers),
        ON_BOTH(a_parked_receive_can_be_cancelled),
#ifndef __SANITIZE_ADDRESS__
        ON_BOTH(a_receive_waits_for_memory_without_spinning),
#endif
        ON_BOTH(the_pool_grows_on_demand_and_shrinks_again),
        ON_BOTH(dry_buffers_lose_nothing),
        ON_BOTH(accepts_many_connections),
        ON_BOTH(accept_reports_that_descriptors_ran_out),
        ON_BOTH(a_closed_descriptor_is_really_closed),
        ON_BOTH(the_wait_ends_for_a_timer),
        ON_BOTH(a_long_callback_holds_no_timer_up_twice),
        ON_BOTH(the_wait_is_bounded_by_the_caller),
        ON_BOTH(a_busy_descriptor_does_not_starve_others),
        cmocka_unit_test(auto_takes_what_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
