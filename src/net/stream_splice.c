#include "net/stream_splice.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>

#include "coro/coro.h"
#include "io/wait.h"

enum { SENT_BYTES = 4096 }; /* copied to wait for a full socket: see tunnel_splice.c */

/* Stops the stream's own receive, which may still bring something. */
static int stop_receiving(struct stream *stream, int64_t deadline)
{
    assert(!stream->reader);
    if (!stream->paused)
        stream_pause(stream);
    while (io_op_in_flight(&stream->recv)) {
        stream->reader = coro_self();
        int result = wait_wake(stream->io, deadline);
        stream->reader = NULL;
        if (result < 0)
            return result;
    }
    return stream->closing ? -ECANCELED : 0;
}

static int wait_readable(struct stream *stream, int64_t deadline)
{
    struct io_op poll = {.kind = IO_OP_POLL, .fd = stream->fd, .events = POLLIN};
    return wait_op(stream->io, &poll, deadline);
}

/* Is it not the socket that has failed, but what was asked of it? */
static bool refused(int error)
{
    return error == -EINVAL || error == -EOPNOTSUPP || error == -ENOSYS || error == -EPERM;
}

/* Returns as stream_splice_in. */
static int fill(struct stream *stream, uint64_t bytes_max, struct io_pipe **pipe)
{
    *pipe = io_pipe_take(stream->io);
    if (!*pipe)
        return 0;
    int count = io_pipe_fill(*pipe, stream->fd, bytes_max);
    if (count > 0) {
        stream_count_in(stream, (uint32_t)count);
        return count;
    }
    io_pipe_release(stream->io, *pipe);
    if (refused(count))
        return -EOPNOTSUPP;
    if (count < 0)
        stream_received_end(stream, count);
    return 0;
}

int stream_splice_in(struct stream *stream, uint64_t bytes_max, struct io_pipe **pipe,
                     int64_t deadline)
{
    assert(!stream->filter);
    if (!io_pipe_any(stream->io))
        return 0;
    int result = stop_receiving(stream, deadline);
    if (result == 0 && (stream->first || stream->end != STREAM_OPEN))
        return 0;
    if (result == 0)
        result = wait_readable(stream, deadline);
    if (result >= 0)
        return fill(stream, bytes_max, pipe);
    return result == -ETIMEDOUT || result == -ECANCELED ? result : 0;
}

/* Copies the first bytes of the pipe into a send, which ends when the socket has room again. */
static int copy_some(struct stream *stream, struct io_pipe *pipe, int64_t deadline)
{
    char bytes[SENT_BYTES];
    int count = io_pipe_read(pipe, bytes, sizeof(bytes));
    if (count < 0)
        return count;
    struct iovec iov = {bytes, (size_t)count};
    return stream_send(stream, &iov, 1, deadline);
}

static int drain(struct stream *stream, struct io_pipe *pipe, int64_t deadline)
{
    bool copies = false;
    while (pipe->bytes) {
        if (coro_cancelled() || stream->closing)
            return -ECANCELED;
        int count = copies ? -EAGAIN : io_pipe_drain(pipe, stream->fd);
        if (count > 0)
            stream_count_out(stream, (uint32_t)count);
        else if (refused(count))
            copies = true;
        else if (count != -EAGAIN)
            return count;
        int result = pipe->bytes ? copy_some(stream, pipe, deadline) : 0;
        if (result < 0)
            return result;
    }
    return 0;
}

int stream_splice_out(struct stream *stream, struct io_pipe *pipe, int64_t deadline)
{
    assert(!stream->filter);
    int result = drain(stream, pipe, deadline);
    io_pipe_release(stream->io, pipe);
    return result;
}
