#include "net/stream.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/counters.h"
#include "coro/coro.h"
#include "io/wait.h"

enum {
    HANGUP_CHECK_MS = 250,
    STALLED_CHECK_MS = 1000,
    CONNECT_AGAIN_MS = 50,
    KEEPALIVE_PROBES = 3,
    KEEPALIVE_MAX_S = 32767, /* what the kernel takes */
    SHARED_BYTES_MAX = 4096, /* an arrival up to this size joins the buffer before it */
    TCP_CLOSED = 7,          /* TCP_CLOSE of the kernel's states: after a reset */
};

static void arm(struct stream *stream);
static void finish_close(struct stream *stream);
static int next_piece(struct stream_write *write);
static void write_ended(struct stream_write *write, int result);

static void notify(struct stream *stream)
{
    if (stream->reader)
        coro_wake(stream->reader, 0);
    else if (stream->on_arrival)
        stream->on_arrival(stream);
}

void stream_count_in(struct stream *stream, uint32_t bytes)
{
    stream->bytes_in += bytes;
    if (stream->side != STREAM_UNCOUNTED)
        counters_add(stream->side == STREAM_OF_CLIENT ? COUNTER_CLIENT_BYTES_IN
                                                      : COUNTER_PEER_BYTES_IN,
                     bytes);
}

void stream_count_out(struct stream *stream, uint32_t bytes)
{
    stream->bytes_out += bytes;
    if (stream->side != STREAM_UNCOUNTED)
        counters_add(stream->side == STREAM_OF_CLIENT ? COUNTER_CLIENT_BYTES_OUT
                                                      : COUNTER_PEER_BYTES_OUT,
                     bytes);
}

static bool get_tcp_info(const struct stream *stream, struct tcp_info *info)
{
    socklen_t len = sizeof(*info);
    *info = (struct tcp_info){0};
    return getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0;
}

/* Nothing is received for now: looks for a reset from time to time. */
static void watch_for_reset(struct stream *stream)
{
    uint32_t wait_ms = stream->end == STREAM_OPEN ? STALLED_CHECK_MS : HANGUP_CHECK_MS;
    if (!timer_armed(&stream->hangup))
        timer_start(io_timers(stream->io), &stream->hangup, io_now_ms(stream->io) + wait_ms);
}

/*
 * Behind the peer's FIN nothing is received any more, nor while nobody takes what has come, yet a
 * reset still tells that it is gone. The kernel can be waited on for that with epoll only (a poll
 * of io_uring always reports the FIN), so the state of the connection is looked at: half-closed
 * ones are few and short-lived, stalled ones are looked at less often.
 */
static void look_for_reset(struct timer *timer)
{
    struct stream *stream = timer->owner;
    struct tcp_info info;
    bool received = stream->end == STREAM_OPEN && io_op_in_flight(&stream->recv);
    if (received || !stream->watch_hangup || stream->shut || !get_tcp_info(stream, &info))
        return; /* with both FINs said, the connection is closed without a reset */
    if (info.tcpi_state != TCP_CLOSED) {
        watch_for_reset(stream);
        return;
    }
    stream->end = -ECONNRESET;
    notify(stream);
}

/* How many buffers may be received ahead of the reader. */
static uint32_t queue_max(const struct stream *stream)
{
    return !stream->reader && io_buffers_scarce(stream->io) ? 1 : STREAM_QUEUE_MAX;
}

/* A byte that nobody reads yet must not hold a whole buffer: small arrivals share one, and when
 * buffers are scarce only a reader gets one of the pool's. */
static void enqueue(struct stream *stream, struct io_buf *buf)
{
    stream_count_in(stream, buf->len);
    if (stream->last && buf->len <= SHARED_BYTES_MAX &&
        io_buf_append(stream->io, stream->last, buf)) {
        io_buf_release(stream->io, buf);
        return;
    }
    if (!stream->reader && io_buffers_scarce(stream->io))
        buf = io_buf_compact(stream->io, buf);
    buf->next = NULL;
    if (stream->last)
        stream->last->next = buf;
    else
        stream->first = buf;
    stream->last = buf;
    stream->queued++;
}

/* The kernel tells of a reset only once: if that was to a send, what is received then looks like a
 * FIN. One behind a FIN is EPIPE to sends, and the end an end. */
static bool reset_met_send(const struct stream *stream)
{
    int error = stream->send_error;
    if (!error && stream->write)
        error = io_op_failure(&stream->write->op);
    return error && error != -EPIPE && error != -ECANCELED;
}

static void end_at_eof(struct stream *stream)
{
    if (reset_met_send(stream)) {
        stream->end = -ECONNRESET;
        return;
    }
    stream->end = stream->filter ? stream->filter->ended(stream) : STREAM_EOF;
    watch_for_reset(stream);
}

static void take_arrival(struct stream *stream, struct io_buf *buf)
{
    if (stream->closing)
        io_buf_release(stream->io, buf);
    else if (stream->filter)
        stream->filter->received(stream, buf);
    else
        enqueue(stream, buf);
}

static void recv_done(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    struct stream *stream = op->owner;
    uint64_t bytes_before = stream->bytes_in;
    bool ended_before = stream->end != STREAM_OPEN;
    if (buf)
        take_arrival(stream, buf);
    if (stream->closing) {
        if (!more)
            finish_close(stream);
        return;
    }
    if (more) {
        if (stream->queued >= queue_max(stream))
            io_cancel(stream->io, &stream->recv);
    } else if (stream->end == STREAM_OPEN) {
        if (result <= 0 && result != -ECANCELED)
            stream_received_end(stream, result);
        else
            arm(stream);
    }
    /* Only what a reader can see is news: not the end of a stopped receive, unless somebody waits
     * for that, nor half a record. */
    if (stream->bytes_in != bytes_before || (stream->end != STREAM_OPEN) != ended_before ||
        (stream->paused && !more))
        notify(stream);
}

static void arm(struct stream *stream)
{
    if (!stream->started || stream->closing || stream->end != STREAM_OPEN ||
        io_op_in_flight(&stream->recv))
        return;
    if (stream->paused || stream->queued >= queue_max(stream)) {
        watch_for_reset(stream);
        return;
    }
    stream->recv = (struct io_op){.kind = IO_OP_RECV,
                                  .fd = stream->fd,
                                  .once = stream->piecewise,
                                  .done = recv_done,
                                  .owner = stream};
    io_submit(stream->io, &stream->recv);
}

void stream_init(struct stream *stream, struct io *io, int fd)
{
    *stream = (struct stream){.io = io, .fd = fd, .end = STREAM_OPEN};
    timer_init(&stream->hangup, look_for_reset, stream);
}

/* A unix socket with a full queue says so at once, where one of TCP lets us wait: so is it here. */
static int connect_when_taken(struct io *io, int fd, const struct address *to, int64_t deadline)
{
    for (;;) {
        struct io_op op = {.kind = IO_OP_CONNECT,
                           .fd = fd,
                           .connect = {.address = &to->any, .address_len = to->len}};
        int result = wait_op(io, &op, deadline);
        if (result != -EAGAIN)
            return result;
        int64_t again_ms = io_now_ms(io) + CONNECT_AGAIN_MS;
        result = wait_wake(io, again_ms < deadline ? again_ms : deadline);
        if (result != -ETIMEDOUT || deadline <= io_now_ms(io))
            return result;
    }
}

int stream_connect(struct stream *stream, struct io *io, const struct address *to, int64_t deadline)
{
    int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (to->any.sa_family != AF_UNIX) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    int result = connect_when_taken(io, fd, to, deadline);
    if (result < 0) {
        io_close_fd(io, fd);
        return result;
    }
    stream_init(stream, io, fd);
    stream->movable = true;
    stream->local_socket = to->any.sa_family == AF_UNIX;
    stream->remote = *to;
    stream->side = STREAM_OF_PEER;
    return 0;
}

static void ask_when_silent(const struct stream *stream, uint32_t keepalive_ms)
{
    int on = 1;
    int idle_s = (int)((keepalive_ms + 999) / 1000); /* the kernel counts in seconds */
    int apart_s = (idle_s + 2) / 3;
    int count = KEEPALIVE_PROBES;
    if (idle_s > KEEPALIVE_MAX_S)
        idle_s = apart_s = KEEPALIVE_MAX_S;
    setsockopt(stream->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPINTVL, &apart_s, sizeof(apart_s));
    setsockopt(stream->fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

void stream_watch_peer(struct stream *stream, uint32_t keepalive_ms, uint32_t ack_timeout_ms)
{
    if (stream->local_socket)
        return;
    if (keepalive_ms)
        ask_when_silent(stream, keepalive_ms);
    if (ack_timeout_ms)
        setsockopt(stream->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ack_timeout_ms,
                   sizeof(ack_timeout_ms));
}

void stream_start(struct stream *stream)
{
    stream->started = true;
    arm(stream);
}

void stream_pause(struct stream *stream)
{
    stream->paused = true;
    if (io_op_in_flight(&stream->recv))
        io_cancel(stream->io, &stream->recv);
}

void stream_resume(struct stream *stream)
{
    stream->paused = false;
    arm(stream);
}

void stream_received_end(struct stream *stream, int result)
{
    if (result == 0)
        end_at_eof(stream);
    else /* -ETIMEDOUT is for our own deadlines; the kernel's means that the peer is gone. */
        stream->end = result == -ETIMEDOUT ? -ECONNRESET : result;
}

int stream_wait_readable(struct stream *stream, int64_t deadline)
{
    assert(!stream->reader);
    while (!stream->first && stream->end == STREAM_OPEN) {
        if (stream->closing)
            return -ECANCELED;
        if (deadline == 0)
            return -ETIMEDOUT;
        stream->reader = coro_self();
        int result = wait_wake(stream->io, deadline);
        stream->reader = NULL;
        if (result < 0)
            return result;
    }
    if (stream->closing)
        return -ECANCELED;
    return stream->first ? 1 : stream->end;
}

struct io_buf *stream_take(struct stream *stream)
{
    struct io_buf *buf = stream->first;
    if (!buf)
        return NULL;
    stream->first = buf->next;
    if (!stream->first)
        stream->last = NULL;
    stream->queued--;
    buf->next = NULL;
    arm(stream);
    return buf;
}

void stream_untake(struct stream *stream, struct io_buf *buf)
{
    buf->next = stream->first;
    stream->first = buf;
    if (!stream->last)
        stream->last = buf;
    stream->queued++;
}

void stream_consume(struct stream *stream, uint32_t count)
{
    struct io_buf *buf = stream->first;
    assert(buf && count <= buf->len);
    buf->data += count;
    buf->len -= count;
    if (buf->len == 0)
        io_buf_release(stream->io, stream_take(stream));
}

/* --- Sending ---------------------------------------------------------------------------------- */

/* A coroutine's send with its stall timer; lives on the sender's stack. */
struct send_wait {
    struct stream_write write;
    struct coro *coro;
    struct timer timer;
    int64_t deadline;
    uint64_t acknowledged; /* by the peer's TCP when last looked at */
    int reason;            /* why an early end was asked for */
};

/* Of local sockets the kernel only tells what is still queued, and what it has taken so far. */
static uint64_t taken_locally(const struct stream *stream)
{
    int queued = 0;
    uint64_t sending = stream->write ? io_op_sent(&stream->write->op) : 0;
    ioctl(stream->fd, SIOCOUTQ, &queued);
    return stream->bytes_out + sending - (uint64_t)queued;
}

uint64_t stream_bytes_acknowledged(const struct stream *stream)
{
    struct tcp_info info;
    if (stream->local_socket)
        return taken_locally(stream);
    return get_tcp_info(stream, &info) ? info.tcpi_bytes_acked : 0;
}

static void send_done(struct stream_write *write, int result)
{
    struct send_wait *wait = write->owner;
    coro_wake(wait->coro, result);
}

static void end_early(struct send_wait *wait, int reason)
{
    wait->reason = reason;
    stream_write_cancel(&wait->write);
}

static void send_cancelled(void *arg)
{
    end_early(arg, -ECANCELED);
}

static int64_t next_check(const struct send_wait *wait)
{
    if (!wait->write.stream->send_stall_ms)
        return wait->deadline;
    int64_t stall_at = io_now_ms(wait->write.stream->io) + wait->write.stream->send_stall_ms;
    return stall_at < wait->deadline ? stall_at : wait->deadline;
}

/* A slow reader is not a dead one: while it acknowledges bytes, the send goes on. */
static void send_timer(struct timer *timer)
{
    struct send_wait *wait = timer->owner;
    uint64_t acknowledged = stream_bytes_acknowledged(wait->write.stream);
    if (io_now_ms(wait->write.stream->io) >= wait->deadline || acknowledged == wait->acknowledged) {
        end_early(wait, -ETIMEDOUT);
        return;
    }
    wait->acknowledged = acknowledged;
    timer_start(io_timers(wait->write.stream->io), timer, next_check(wait));
}

int stream_send(struct stream *stream, struct iovec *iov, unsigned count, int64_t deadline)
{
    assert(!stream->sending);
    if (coro_cancelled())
        return -ECANCELED;
    struct send_wait wait = {
        .write = {.iov = iov, .count = count, .done = send_done},
        .coro = coro_self(),
        .deadline = deadline,
    };
    wait.write.owner = &wait;
    int result = stream_write_start(stream, &wait.write);
    if (result != 0)
        return result > 0 ? 0 : result;
    stream->sending = true;
    timer_init(&wait.timer, send_timer, &wait);
    timer_start(io_timers(stream->io), &wait.timer, next_check(&wait));
    result = coro_wait(send_cancelled, &wait);
    timer_stop(&wait.timer);
    stream->sending = false;
    if (stream->closing)
        finish_close(stream);
    if (result < 0)
        return result == -ECANCELED && wait.reason ? wait.reason : result;
    return 0;
}

static void piece_done(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct stream_write *write = op->owner;
    struct stream *stream = write->stream;
    if (result < 0 && result != -ECANCELED && !stream->send_error)
        stream->send_error = (int16_t)result;
    if (!stream->filter) {
        write->sent = op->state.sent;
        write_ended(write, result);
        return;
    }
    stream->filter->sent(stream);
    if (result >= 0) {
        write->sent = write->taken;
        result = write->cancelled ? -ECANCELED : next_piece(write);
        if (result == 0)
            return;
        if (result > 0)
            result = (int)write->taken;
    }
    write_ended(write, result);
}

/* Sends what comes next of a write. Returns 0: under way; 1: there is nothing left; or an error. */
static int next_piece(struct stream_write *write)
{
    struct stream *stream = write->stream;
    write->op =
        (struct io_op){.kind = IO_OP_SEND, .fd = stream->fd, .done = piece_done, .owner = write};
    if (stream->filter) {
        int result = stream->filter->seal(stream, write, &write->sealed);
        if (result <= 0)
            return result < 0 ? result : 1;
        write->op.msg = (struct msghdr){.msg_iov = &write->sealed, .msg_iovlen = 1};
    } else {
        write->op.msg = (struct msghdr){.msg_iov = write->iov, .msg_iovlen = write->count};
    }
    io_submit(stream->io, &write->op);
    return 0;
}

static void start_next(struct stream *stream)
{
    struct stream_write *write = stream->next_write;
    stream->next_write = NULL;
    if (!write)
        return;
    int result =
        stream->closing || write->cancelled ? -ECANCELED : stream_write_start(stream, write);
    if (result)
        write->done(write, result < 0 ? result : (int)write->taken);
}

static void write_ended(struct stream_write *write, int result)
{
    struct stream *stream = write->stream;
    stream->write = NULL;
    stream_count_out(stream, (uint32_t)write->sent);
    write->done(write, result);
    start_next(stream);
    if (stream->closing)
        finish_close(stream);
    else if (stream->shut && !stream->write)
        shutdown(stream->fd, SHUT_WR);
}

int stream_write_start(struct stream *stream, struct stream_write *write)
{
    write->stream = stream;
    if (stream->closing)
        return -ECANCELED;
    if (stream->write) {
        assert(stream->write->background && !stream->next_write);
        stream->next_write = write;
        return 0;
    }
    int result = next_piece(write);
    if (result == 0)
        stream->write = write;
    return result;
}

void stream_write_cancel(struct stream_write *write)
{
    write->cancelled = true;
    /* The filter's write that it waits for may never end: the peer takes nothing. */
    if (write->stream->next_write == write)
        stream_write_cancel(write->stream->write);
    else if (io_op_in_flight(&write->op))
        io_cancel(write->stream->io, &write->op);
}

/* --- Filters ---------------------------------------------------------------------------------- */

void stream_deliver(struct stream *stream, struct io_buf *buf)
{
    enqueue(stream, buf);
}

void stream_set_filter(struct stream *stream, const struct stream_filter *filter, void *state)
{
    assert(!stream->write && !stream->filter);
    struct io_buf *queued = stream->first;
    int end = stream->end;
    stream->first = stream->last = NULL;
    stream->queued = 0;
    stream->end = STREAM_OPEN;                /* it comes behind what is queued */
    stream->bytes_in = stream->bytes_out = 0; /* the users' bytes count */
    stream->filter = filter;
    stream->filter_state = state;
    while (queued) {
        struct io_buf *buf = queued;
        queued = buf->next;
        filter->received(stream, buf);
    }
    if (end != STREAM_OPEN && stream->end == STREAM_OPEN)
        stream->end = end == STREAM_EOF ? filter->ended(stream) : end;
    arm(stream);
}

/* --- The end ---------------------------------------------------------------------------------- */

void stream_fail(struct stream *stream, int error)
{
    if (stream->end != STREAM_OPEN)
        return;
    stream->end = error;
    if (error == STREAM_EOF)
        watch_for_reset(stream);
    if (io_op_in_flight(&stream->recv))
        io_cancel(stream->io, &stream->recv);
    if (stream->reader)
        coro_wake(stream->reader, 0);
}

void stream_shutdown(struct stream *stream)
{
    if (stream->closing || stream->shut)
        return;
    stream->shut = true;
    if (stream->filter)
        stream->filter->shut(stream);
    if (!stream->write)
        shutdown(stream->fd, SHUT_WR);
}

static void reset_on_close(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* The descriptor is closed only when the kernel refers to none of our memory any more. */
static void finish_close(struct stream *stream)
{
    if (stream->closed || io_op_in_flight(&stream->recv) || stream->write || stream->sending)
        return;
    stream->closed = true;
    if (stream->filter)
        stream->filter->closed(stream);
    if (stream->reset)
        reset_on_close(stream->fd);
    if (stream->left)
        io_leave_fd(stream->io, stream->fd);
    else
        io_close_fd(stream->io, stream->fd);
    stream->fd = -1;
    if (stream->on_closed)
        stream->on_closed(stream);
}

void stream_close(struct stream *stream)
{
    if (stream->closing)
        return;
    stream->closing = true;
    timer_stop(&stream->hangup);
    while (stream->first) {
        struct io_buf *buf = stream->first;
        stream->first = buf->next;
        io_buf_release(stream->io, buf);
    }
    stream->last = NULL;
    stream->queued = 0;
    if (stream->reader)
        coro_wake(stream->reader, -ECANCELED);
    if (io_op_in_flight(&stream->recv))
        io_cancel(stream->io, &stream->recv);
    if (stream->write)
        stream_write_cancel(stream->write);
    finish_close(stream);
}

void stream_abort(struct stream *stream)
{
    stream->reset = true;
    stream_close(stream);
}

void stream_expect_reset(struct stream *stream)
{
    stream->send_error = -ECONNRESET; /* as if a send had heard of it */
}

void stream_leave(struct stream *stream)
{
    stream->left = true;
    stream_close(stream);
}

bool stream_quiet(const struct stream *stream)
{
    return !stream->first && stream->end == STREAM_OPEN && !stream->closing;
}
