/*
 * A direction in which much flows: bytes go from socket to socket through a pipe and never enter
 * the process. A pipe is held only while bytes are in it, so a direction that waits for bytes holds
 * a poll, and one whose reader is slow no more than a pipe.
 *
 *   waiting ──readable──▶ fill ──▶ drain ──all gone──▶ waiting
 *    │                      │        ▲ └──socket full──▶ sending a copy of a few bytes ─┐
 *    │                      │        └──────────────────sent────────────────────────────┘
 *    └──little flows────────┴──no pipe, no bytes──▶ copying again (tunnel_copy.c)
 *
 * A full socket is waited for by a send, not by a poll: a poll also ends, again and again, when the
 * other side has only said FIN.
 */
#include "net/tunnel_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

enum {
    STREAK_BYTES = 256 << 10, /* after so much in large pieces a direction is spliced */
    LITTLE_BYTES = 16 << 10,  /* copying so few costs no more than splicing them */
    LITTLE_MAX = 8,           /* after so many of these one after the other they are copied again */
    DRY_MS = 500,             /* as they are after so long without any */
    SENT_BYTES = 4096,        /* copied to wait for a full socket */
};

static void wait_readable(struct direction *direction);
static void readable(struct io_op *op, int result, struct io_buf *buf, bool more);
static void drain(struct direction *direction);
static bool refused(int error);
static void check_dry(struct timer *timer);

bool tunnel_splice_pays(const struct direction *direction)
{
    return direction->streak_bytes >= STREAK_BYTES && !direction->tunnel->options.copy_only &&
           !direction->from->filter && !direction->to->filter && io_pipe_any(direction->tunnel->io);
}

int tunnel_splice_start(struct direction *direction)
{
    struct tunnel_splice *splice = calloc(1, sizeof(*splice));
    if (!splice)
        return -ENOMEM;
    direction->splice = splice;
    struct io *io = direction->tunnel->io;
    timer_init(&splice->dry, check_dry, direction);
    timer_start(io_timers(io), &splice->dry, io_now_ms(io) + DRY_MS);
    wait_readable(direction);
    return 0;
}

void tunnel_splice_cancel(struct direction *direction)
{
    if (direction->splice)
        io_cancel(direction->tunnel->io, &direction->splice->poll);
}

bool tunnel_splice_busy(const struct direction *direction)
{
    return direction->splice && io_op_in_flight(&direction->splice->poll);
}

void tunnel_splice_free(struct direction *direction)
{
    struct tunnel_splice *splice = direction->splice;
    if (!splice)
        return;
    timer_stop(&splice->dry);
    if (splice->pipe)
        io_pipe_release(direction->tunnel->io, splice->pipe);
    free(splice);
    direction->splice = NULL;
}

/* Copies from now on; nothing is in the pipe. */
static void leave(struct direction *direction)
{
    tunnel_splice_free(direction);
    direction->streak_bytes = 0;
    stream_resume(direction->from);
    tunnel_pump(direction);
}

static void check_dry(struct timer *timer)
{
    struct direction *direction = timer->owner;
    struct tunnel_splice *splice = direction->splice;
    struct io *io = direction->tunnel->io;
    if (!splice->moved && !splice->pipe)
        io_cancel(io, &splice->poll);
    splice->moved = false;
    timer_start(io_timers(io), timer, io_now_ms(io) + DRY_MS);
}

static void wait_readable(struct direction *direction)
{
    struct tunnel_splice *splice = direction->splice;
    splice->poll = (struct io_op){.kind = IO_OP_POLL,
                                  .fd = direction->from->fd,
                                  .events = POLLIN,
                                  .done = readable,
                                  .owner = direction};
    io_submit(direction->tunnel->io, &splice->poll);
}

static void give_pipe_back(struct direction *direction)
{
    io_pipe_release(direction->tunnel->io, direction->splice->pipe);
    direction->splice->pipe = NULL;
}

/* One pipe a turn, so that no tunnel has a turn for itself. */
static void fill(struct direction *direction)
{
    struct tunnel_splice *splice = direction->splice;
    splice->pipe = io_pipe_take(direction->tunnel->io);
    if (!splice->pipe) {
        leave(direction);
        return;
    }
    int count = io_pipe_fill(splice->pipe, direction->from->fd, UINT64_MAX);
    if (count > 0) {
        stream_count_in(direction->from, (uint32_t)count);
        splice->moved = true;
        splice->little = count < LITTLE_BYTES ? splice->little + 1 : 0;
        tunnel_moved(direction->tunnel);
        drain(direction);
        return;
    }
    give_pipe_back(direction);
    if (refused(count))
        direction->tunnel->options.copy_only = true;
    if (count == 0 || refused(count)) {
        leave(direction);
        return;
    }
    tunnel_splice_free(direction);
    stream_received_end(direction->from, count);
    tunnel_pump(direction);
}

/* Is it not the socket that has failed, but what was asked of it? */
static bool refused(int error)
{
    return error == -EINVAL || error == -EOPNOTSUPP || error == -ENOSYS || error == -EPERM;
}

static void readable(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct direction *direction = op->owner;
    if (tunnel_ending(direction->tunnel))
        return;
    if (direction->tunnel->freeze)
        tunnel_settle(direction->tunnel);
    else if (result < 0)
        leave(direction); /* if that was no wish of ours, a receive will tell what is wrong */
    else
        fill(direction);
}

/* The send ends when the socket has room again. */
static void wait_writable(struct direction *direction)
{
    char bytes[SENT_BYTES];
    int count = io_pipe_read(direction->splice->pipe, bytes, sizeof(bytes));
    int result = count < 0 ? count : tunnel_copy_bytes(direction, bytes, (uint32_t)count);
    if (result < 0)
        tunnel_fail(direction, direction->to, result);
}

static void drained(struct direction *direction)
{
    give_pipe_back(direction);
    if (direction->splice->little >= LITTLE_MAX || direction->tunnel->options.copy_only)
        leave(direction);
    else
        wait_readable(direction);
}

static void drain(struct direction *direction)
{
    struct io_pipe *pipe = direction->splice->pipe;
    int count = io_pipe_drain(pipe, direction->to->fd);
    if (refused(count)) {
        direction->tunnel->options.copy_only = true; /* the rest of the pipe, too */
    } else if (count < 0 && count != -EAGAIN) {
        tunnel_fail(direction, direction->to, count);
        return;
    }
    if (count > 0) {
        direction->bytes += (uint64_t)count;
        stream_count_out(direction->to, (uint32_t)count);
    }
    if (pipe->bytes)
        wait_writable(direction);
    else
        drained(direction);
}

void tunnel_splice_sent(struct direction *direction)
{
    if (direction->splice->pipe->bytes)
        drain(direction);
    else
        drained(direction);
}
