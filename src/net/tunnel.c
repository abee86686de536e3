#include "net/tunnel.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"

enum { PIECES_MAX = 8 }; /* received buffers sent on at once */

/* One way through the tunnel. */
struct direction {
    struct tunnel *tunnel;
    struct stream *from;
    struct stream *to;
    struct stream_write write;
    struct iovec iov[PIECES_MAX];
    struct io_buf *held; /* being sent; owned */
    uint64_t bytes;      /* sent on */
    bool busy;           /* the write is under way */
    bool shut;           /* the FIN has been carried over */
};

struct tunnel {
    struct io *io;
    struct direction out; /* client to peer */
    struct direction back;
    struct tunnel_options options;
    struct timer timer;
    int64_t moved_ms; /* when something was last received */
    struct tunnel_result result;
    bool ending;
    void (*done)(const struct tunnel_result *result, void *owner);
    void *owner;
};

static void pump(struct direction *direction);

static void release_held(struct direction *direction)
{
    while (direction->held) {
        struct io_buf *buf = direction->held;
        direction->held = buf->next;
        io_buf_release(direction->tunnel->io, buf);
    }
}

/* Closes both streams once no send refers to their buffers any more. A failed side makes the other
 * one end with a reset: its peer must not take a cut for an end. */
static void finish(struct timer *timer)
{
    struct tunnel *tunnel = timer->owner;
    if (tunnel->out.busy || tunnel->back.busy)
        return;
    struct stream *client = tunnel->out.from;
    struct stream *peer = tunnel->out.to;
    bool clean = tunnel->result.reason == TUNNEL_ENDED;
    tunnel->result.client_bytes = tunnel->out.bytes;
    tunnel->result.peer_bytes = tunnel->back.bytes;
    if (tunnel->done)
        tunnel->done(&tunnel->result, tunnel->owner);
    free(tunnel);
    if (clean) {
        stream_close(client);
        stream_close(peer);
    } else {
        stream_abort(client);
        stream_abort(peer);
    }
}

/* At the next turn, so that nobody's tunnel is freed under his feet. */
static void finish_soon(struct tunnel *tunnel)
{
    timer_stop(&tunnel->timer);
    timer_init(&tunnel->timer, finish, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, io_now_ms(tunnel->io));
}

static void end(struct tunnel *tunnel, enum tunnel_reason reason, int error)
{
    if (tunnel->ending)
        return;
    tunnel->ending = true;
    tunnel->result.reason = reason;
    tunnel->result.error = error;
    tunnel->out.from->on_arrival = NULL;
    tunnel->back.from->on_arrival = NULL;
    if (tunnel->out.busy)
        stream_write_cancel(&tunnel->out.write);
    if (tunnel->back.busy)
        stream_write_cancel(&tunnel->back.write);
    finish_soon(tunnel);
}

static void end_failed(struct tunnel *tunnel, const struct stream *failed, int error)
{
    end(tunnel, failed == tunnel->out.from ? TUNNEL_CLIENT_FAILED : TUNNEL_PEER_FAILED, error);
}

static void sent(struct stream_write *write, int result)
{
    struct direction *direction = write->owner;
    struct tunnel *tunnel = direction->tunnel;
    direction->busy = false;
    release_held(direction);
    if (result > 0)
        direction->bytes += (uint64_t)result;
    if (tunnel->ending)
        finish_soon(tunnel);
    else if (result < 0)
        end_failed(tunnel, direction->to, result);
    else
        pump(direction);
}

static unsigned gather(struct direction *direction)
{
    unsigned count = 0;
    struct io_buf **tail = &direction->held;
    while (count < PIECES_MAX && direction->from->first) {
        struct io_buf *buf = stream_take(direction->from);
        direction->iov[count++] = (struct iovec){buf->data, buf->len};
        *tail = buf;
        tail = &buf->next;
    }
    return count;
}

/* Carries the end of one side over to the other. */
static void carry_end(struct direction *direction)
{
    struct tunnel *tunnel = direction->tunnel;
    if (direction->from->end < 0) {
        end_failed(tunnel, direction->from, direction->from->end);
        return;
    }
    if (direction->from->end != STREAM_EOF || direction->shut)
        return;
    direction->shut = true;
    stream_shutdown(direction->to);
    if (tunnel->out.shut && tunnel->back.shut)
        end(tunnel, TUNNEL_ENDED, 0);
}

static void pump(struct direction *direction)
{
    if (direction->busy || direction->tunnel->ending)
        return; /* what has arrived waits until the other side has taken what is on its way */
    unsigned count = gather(direction);
    if (!count) {
        carry_end(direction);
        return;
    }
    direction->write = (struct stream_write){
        .iov = direction->iov, .count = count, .done = sent, .owner = direction};
    int result = stream_write_start(direction->to, &direction->write);
    direction->busy = result == 0;
    if (result < 0) {
        release_held(direction);
        end_failed(direction->tunnel, direction->to, result);
    }
}

static void arrival(struct tunnel *tunnel, struct direction *direction)
{
    tunnel->moved_ms = io_now_ms(tunnel->io);
    pump(direction);
}

static void client_arrival(struct stream *stream)
{
    struct tunnel *tunnel = stream->tunnel;
    arrival(tunnel, &tunnel->out);
}

static void peer_arrival(struct stream *stream)
{
    struct tunnel *tunnel = stream->tunnel;
    arrival(tunnel, &tunnel->back);
}

static int64_t next_check(const struct tunnel *tunnel)
{
    int64_t idle_at = tunnel->options.idle_timeout_ms
                          ? tunnel->moved_ms + tunnel->options.idle_timeout_ms
                          : DEADLINE_NEVER;
    return idle_at < tunnel->options.deadline ? idle_at : tunnel->options.deadline;
}

static void check_time(struct timer *timer)
{
    struct tunnel *tunnel = timer->owner;
    int64_t now = io_now_ms(tunnel->io);
    if (now >= tunnel->options.deadline)
        end(tunnel, TUNNEL_DEADLINE, -ETIMEDOUT);
    else if (now >= next_check(tunnel))
        end(tunnel, TUNNEL_IDLE, -ETIMEDOUT);
    else
        timer_start(io_timers(tunnel->io), timer, next_check(tunnel));
}

static void begin(struct timer *timer)
{
    struct tunnel *tunnel = timer->owner;
    timer_init(&tunnel->timer, check_time, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, next_check(tunnel));
    pump(&tunnel->out);
    pump(&tunnel->back);
}

struct tunnel *tunnel_start(struct stream *client, struct stream *peer,
                            const struct tunnel_options *options,
                            void (*done)(const struct tunnel_result *result, void *owner),
                            void *owner)
{
    struct tunnel *tunnel = calloc(1, sizeof(*tunnel));
    if (!tunnel)
        return NULL;
    *tunnel = (struct tunnel){
        .io = client->io,
        .out = {.tunnel = tunnel, .from = client, .to = peer},
        .back = {.tunnel = tunnel, .from = peer, .to = client},
        .options = *options,
        .moved_ms = io_now_ms(client->io),
        .done = done,
        .owner = owner,
    };
    client->tunnel = peer->tunnel = tunnel;
    client->on_arrival = client_arrival;
    peer->on_arrival = peer_arrival;
    client->watch_hangup = peer->watch_hangup = false;
    /* What is queued already moves at the next turn, when the caller is done with the streams. */
    timer_init(&tunnel->timer, begin, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, io_now_ms(tunnel->io));
    return tunnel;
}

void tunnel_cancel(struct tunnel *tunnel)
{
    end(tunnel, TUNNEL_CANCELLED, -ECANCELED);
}
