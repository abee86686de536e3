#include "net/peek.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "coro/coro.h"
#include "io/wait.h"

/* Small buffers fill the queue as well as large ones: puts all into one of the pool, so that more
 * can be received. */
static int join(struct stream *stream)
{
    size_t len = peek_len(stream);
    struct io_buf *joined = len < io_buf_bytes(stream->io) ? io_buf_take(stream->io) : NULL;
    if (!joined)
        return -ENOBUFS;
    joined->len = (uint32_t)peek_copy(stream, joined->data, len);
    for (struct io_buf *buf; (buf = stream_take(stream));)
        io_buf_release(stream->io, buf);
    stream_untake(stream, joined);
    return 0;
}

int peek_wait(struct stream *stream, int64_t deadline)
{
    uint64_t before = stream->bytes_in;
    assert(!stream->reader);
    if (stream->queued >= STREAM_QUEUE_MAX && stream->end == STREAM_OPEN && join(stream) != 0)
        return -ENOBUFS;
    while (stream->bytes_in == before && stream->end == STREAM_OPEN) {
        if (stream->closing)
            return -ECANCELED;
        stream->reader = coro_self();
        stream_resume(stream); /* for a reader more may be queued than was when there was none */
        int result = wait_wake(stream->io, deadline);
        stream->reader = NULL;
        if (result < 0)
            return result;
    }
    if (stream->closing)
        return -ECANCELED;
    return stream->bytes_in != before ? 1 : stream->end;
}

size_t peek_len(const struct stream *stream)
{
    size_t len = 0;
    for (const struct io_buf *buf = stream->first; buf; buf = buf->next)
        len += buf->len;
    return len;
}

struct slice peek_at(const struct stream *stream, size_t offset)
{
    const struct io_buf *buf = stream->first;
    while (buf && offset >= buf->len) {
        offset -= buf->len;
        buf = buf->next;
    }
    return buf ? slice_of(buf->data + offset, buf->len - offset) : slice_of(NULL, 0);
}

size_t peek_copy(const struct stream *stream, char *bytes, size_t size)
{
    size_t copied = 0;
    for (const struct io_buf *buf = stream->first; buf && copied < size; buf = buf->next) {
        size_t len = buf->len < size - copied ? buf->len : size - copied;
        memcpy(bytes + copied, buf->data, len);
        copied += len;
    }
    return copied;
}
