/* Tunnels that move from one process to another: see tunnel.h. */
#include "net/tunnel_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "net/tunnel_state.h"

enum { PIECE_BYTES = 64 << 10 }; /* of bytes that were on their way, as they are queued */

/* --- Stopping --------------------------------------------------------------------------------- */

static bool stream_movable(const struct stream *stream)
{
    return stream->movable && !stream->filter && stream->end >= 0 && !stream->closing;
}

bool tunnel_movable(const struct tunnel *tunnel)
{
    return tunnel->begun && !tunnel->ending && !tunnel->freeze &&
           stream_movable(tunnel->out.from) && stream_movable(tunnel->out.to);
}

static uint64_t unsent_bytes(const struct msghdr *msg)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        bytes += msg->msg_iov[i].iov_len;
    return bytes;
}

/* In front of what has come since. */
void tunnel_take_back(struct direction *direction, struct tunnel_send *send)
{
    struct io_buf *bufs[TUNNEL_PIECES_MAX];
    unsigned count = 0;
    for (struct io_buf *buf = send->held; buf; buf = buf->next)
        bufs[count++] = buf;
    for (uint64_t left = unsent_bytes(&send->write.op.msg); count--;) {
        struct io_buf *buf = bufs[count];
        uint32_t keep = left < buf->len ? (uint32_t)left : buf->len;
        buf->data += buf->len - keep;
        buf->len = keep;
        left -= keep;
        if (keep)
            stream_untake(direction->from, buf);
        else
            io_buf_release(direction->tunnel->io, buf);
    }
    send->held = NULL;
}

/* Memory for what is in the pipe, if anything is. False if there is none. */
static bool make_room(const struct direction *direction, struct io_buf **buf)
{
    const struct tunnel_splice *splice = direction->splice;
    *buf = NULL;
    if (!splice || !splice->pipe || !splice->pipe->bytes)
        return true;
    *buf = io_buf_make(splice->pipe->bytes);
    return *buf != NULL;
}

/* Nothing else is queued while a direction is spliced; what is being sent comes before it. */
static void empty_pipe(struct direction *direction, struct io_buf *buf)
{
    struct tunnel_splice *splice = direction->splice;
    uint32_t got = 0;
    while (buf && got < buf->len) {
        int count = io_pipe_read(splice->pipe, buf->data + got, buf->len - got);
        if (count <= 0) {
            io_buf_release(direction->tunnel->io, buf);
            tunnel_fail(direction, direction->to, count ? count : -EIO);
            return;
        }
        got += (uint32_t)count;
    }
    if (buf)
        stream_untake(direction->from, buf);
    if (splice && splice->pipe) {
        io_pipe_release(direction->tunnel->io, splice->pipe);
        splice->pipe = NULL;
    }
}

static void stop(struct direction *direction)
{
    stream_pause(direction->from);
    if (direction->send)
        stream_write_cancel(&direction->send->write);
    tunnel_splice_cancel(direction);
}

static bool still(const struct direction *direction)
{
    return !direction->send && !tunnel_splice_busy(direction) &&
           !io_op_in_flight(&direction->from->recv);
}

/* Whether it can be, is seen when nothing more can change. */
static void settled(struct timer *timer)
{
    struct tunnel *tunnel = timer->owner;
    struct tunnel_freeze *freeze = tunnel->freeze;
    if (!still(&tunnel->out) || !still(&tunnel->back))
        return;
    bool failed = tunnel->out.from->end < 0 || tunnel->out.to->end < 0;
    if (tunnel->frozen && !failed)
        return; /* news of a frozen one that is none */
    tunnel_splice_free(&tunnel->out);
    tunnel_splice_free(&tunnel->back);
    tunnel->frozen = true;
    if (!failed) {
        freeze->frozen(freeze);
        return;
    }
    tunnel_thaw(tunnel);
    freeze->over(freeze);
}

void tunnel_settle(struct tunnel *tunnel)
{
    timer_stop(&tunnel->timer);
    timer_init(&tunnel->timer, settled, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, io_now_ms(tunnel->io));
}

bool tunnel_freeze(struct tunnel *tunnel, struct tunnel_freeze *freeze)
{
    struct io_buf *out, *back;
    if (!make_room(&tunnel->out, &out))
        return false;
    if (!make_room(&tunnel->back, &back)) {
        if (out)
            io_buf_release(tunnel->io, out);
        return false;
    }
    tunnel->freeze = freeze;
    stop(&tunnel->out);
    stop(&tunnel->back);
    empty_pipe(&tunnel->out, out);
    empty_pipe(&tunnel->back, back);
    if (!tunnel->ending)
        tunnel_settle(tunnel);
    return true;
}

/* --- Going on --------------------------------------------------------------------------------- */

static void resume(struct direction *direction)
{
    struct stream *from = direction->from;
    direction->streak_bytes = 0;
    from->paused = false;
    if (from->started)
        stream_resume(from);
    else
        stream_start(from);
}

void tunnel_thaw(struct tunnel *tunnel)
{
    tunnel->freeze = NULL;
    tunnel->frozen = tunnel->borrowed = false;
    timer_stop(&tunnel->timer);
    resume(&tunnel->out);
    resume(&tunnel->back);
    tunnel_go_on(tunnel);
}

void tunnel_leave(struct tunnel *tunnel)
{
    tunnel->freeze = NULL;
    tunnel_end(tunnel, TUNNEL_LEFT, 0);
}

/* --- What goes along -------------------------------------------------------------------------- */

static uint32_t pending(const struct direction *direction)
{
    uint32_t bytes = 0;
    for (const struct io_buf *buf = direction->from->first; buf; buf = buf->next)
        bytes += buf->len;
    return bytes;
}

void tunnel_describe(const struct tunnel *tunnel, struct tunnel_state *state, int *client_fd,
                     int *peer_fd)
{
    const struct tunnel_options *options = &tunnel->options;
    *client_fd = tunnel->out.from->fd;
    *peer_fd = tunnel->out.to->fd;
    state->client_remote = tunnel->out.from->remote;
    if (tunnel->out.from->local)
        state->client_local = *tunnel->out.from->local;
    state->peer_remote = tunnel->out.to->remote;
    state->moved_ms = tunnel->moved_ms;
    state->deadline_ms = options->deadline;
    state->idle_timeout_ms = options->idle_timeout_ms;
    state->half_closed_timeout_ms = options->half_closed_timeout_ms;
    state->client_bytes = tunnel->out.bytes;
    state->peer_bytes = tunnel->back.bytes;
    state->client_pending = pending(&tunnel->out);
    state->peer_pending = pending(&tunnel->back);
    state->client_shut = tunnel->out.shut;
    state->peer_shut = tunnel->back.shut;
}

static int write_queued(const struct direction *direction, int file)
{
    for (const struct io_buf *buf = direction->from->first; buf; buf = buf->next)
        for (uint32_t done = 0; done < buf->len;) {
            ssize_t count = write(file, buf->data + done, buf->len - done);
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0)
                return count < 0 ? -errno : -EIO;
            done += (uint32_t)count;
        }
    return 0;
}

int tunnel_write_pending(const struct tunnel *tunnel)
{
    int file = memfd_create("monolake-tunnel", MFD_CLOEXEC);
    if (file < 0)
        return -errno;
    int result = write_queued(&tunnel->out, file);
    if (result == 0)
        result = write_queued(&tunnel->back, file);
    if (result == 0)
        return file;
    close(file);
    return result;
}

/* --- In the other process --------------------------------------------------------------------- */

struct tunnel *tunnel_adopt(struct stream *client, struct stream *peer,
                            const struct tunnel_state *state, struct tunnel_freeze *freeze,
                            void (*done)(const struct tunnel_result *result, void *owner),
                            void *owner)
{
    struct tunnel *tunnel = calloc(1, sizeof(*tunnel));
    int64_t now = io_now_ms(client->io);
    if (!tunnel)
        return NULL;
    *tunnel = (struct tunnel){
        .io = client->io,
        .out = {.tunnel = tunnel, .from = client, .to = peer},
        .back = {.tunnel = tunnel, .from = peer, .to = client},
        .options = {.idle_timeout_ms = state->idle_timeout_ms,
                    .half_closed_timeout_ms = state->half_closed_timeout_ms,
                    .deadline = state->deadline_ms},
        .moved_ms = state->moved_ms < now ? state->moved_ms : now,
        .freeze = freeze,
        .frozen = true,
        .borrowed = true,
        .done = done,
        .owner = owner,
    };
    tunnel->out.bytes = state->client_bytes;
    tunnel->back.bytes = state->peer_bytes;
    tunnel->out.shut = peer->shut = state->client_shut;
    tunnel->back.shut = client->shut = state->peer_shut;
    timer_init(&tunnel->timer, settled, tunnel);
    tunnel_attach(tunnel);
    return tunnel;
}

/* They were counted when they came. */
static void queue_again(struct stream *stream, struct io_buf *buf)
{
    enum stream_side side = stream->side;
    stream->side = STREAM_UNCOUNTED;
    stream_deliver(stream, buf);
    stream->side = side;
}

/* Appends the next bytes of the file to what is queued. */
static int read_queued(struct stream *stream, int file, off_t *at, uint32_t bytes)
{
    while (bytes) {
        uint32_t len = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
        struct io_buf *buf = io_buf_make(len);
        if (!buf)
            return -ENOMEM;
        ssize_t count = pread(file, buf->data, len, *at);
        if (count != (ssize_t)len) {
            int result = count < 0 ? -errno : -EPROTO;
            io_buf_release(stream->io, buf);
            return result;
        }
        queue_again(stream, buf);
        *at += len;
        bytes -= len;
    }
    return 0;
}

int tunnel_read_pending(struct tunnel *tunnel, const struct tunnel_state *state, int file)
{
    off_t at = 0;
    int result = read_queued(tunnel->out.from, file, &at, state->client_pending);
    if (result == 0)
        result = read_queued(tunnel->back.from, file, &at, state->peer_pending);
    return result;
}
