/*
 *   other ──stream_take──▶ h2_output_send ──▶ peer of HTTP/2        FIN ──▶ END_STREAM
 *   other ◀──stream_send── h2_input_read ◀── peer                   FIN ◀── END_STREAM
 *
 * The caller's coroutine pumps the first direction, a second one the other.
 */
#include "http/h2_tunnel.h"

#include <errno.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "io/wait.h"

struct pump {
    const struct h2_tunnel *tunnel;
    struct stream *other;
    struct io *io;
    struct coro *upload; /* NULL once it has ended */
    struct coro *waiter; /* for that */
    int upload_error;    /* 0: the peer has ended its side */
    bool half_closed;    /* one side has ended */
    int64_t moved_ms;    /* when something went either way */
    uint64_t taken;      /* bytes that either end has taken, when last looked at */
    struct tunnel_result *result;
};

/* When it is over unless something moves. */
static int64_t over_at(const struct pump *pump)
{
    const struct h2_tunnel *tunnel = pump->tunnel;
    uint32_t idle_ms = pump->half_closed && tunnel->half_closed_timeout_ms
                           ? tunnel->half_closed_timeout_ms
                           : tunnel->idle_timeout_ms;
    int64_t idle_at = idle_ms ? pump->moved_ms + idle_ms : DEADLINE_NEVER;
    return idle_at < tunnel->deadline ? idle_at : tunnel->deadline;
}

/* As of any tunnel: a slow reader is not a dead one. */
static bool taken_slowly(struct pump *pump)
{
    const struct h2_output *output = pump->tunnel->output;
    uint64_t taken = output->taken + stream_bytes_acknowledged(pump->other);
    bool more = taken != pump->taken;
    pump->taken = taken;
    return more && (output->left || pump->other->sending);
}

/* A wait has come to its deadline: has nothing moved the other way either? */
static bool over(struct pump *pump)
{
    int64_t now_ms = io_now_ms(pump->io);
    if (now_ms < over_at(pump))
        return false;
    if (now_ms < pump->tunnel->deadline && taken_slowly(pump)) {
        pump->moved_ms = now_ms;
        return false;
    }
    if (pump->result->reason == TUNNEL_ENDED)
        pump->result->reason = now_ms >= pump->tunnel->deadline ? TUNNEL_DEADLINE : TUNNEL_IDLE;
    return true;
}

/* Notes whose fault the end is, the first time. Returns the error. */
static int blame(const struct pump *pump, enum tunnel_reason whom, int error)
{
    if (pump->result->reason == TUNNEL_ENDED)
        pump->result->reason = error == -ECANCELED ? TUNNEL_CANCELLED : whom;
    return error;
}

/* One side has ended, which is news, too: whoever waits for the other looks anew how long he may.
 */
static void note_half_closed(struct pump *pump)
{
    pump->half_closed = true;
    pump->moved_ms = io_now_ms(pump->io);
    if (pump->other->reader)
        coro_wake(pump->other->reader, -ETIMEDOUT);
}

/* --- From the peer ---------------------------------------------------------------------------- */

static int send_on(struct pump *pump, const struct slice *pieces, unsigned count)
{
    struct iovec iov[BODY_SLICES_MAX];
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){(void *)pieces[i].ptr, pieces[i].len};
    pump->moved_ms = io_now_ms(pump->io);
    int result = stream_send(pump->other, iov, count, pump->tunnel->deadline);
    pump->moved_ms = io_now_ms(pump->io); /* it may have taken long */
    return result;
}

/* Returns 0 when the peer has ended its side. */
static int pump_up(struct pump *pump)
{
    struct body body;
    h2_input_body(pump->tunnel->input, &body, -1);
    for (;;) {
        struct slice pieces[BODY_SLICES_MAX];
        int count = body_read(&body, pieces, BODY_SLICES_MAX, over_at(pump));
        if (count == -ETIMEDOUT && !over(pump))
            continue;
        if (count <= 0)
            return count ? blame(pump, TUNNEL_CLIENT_FAILED, count) : 0;
        int result = send_on(pump, pieces, (unsigned)count);
        if (result < 0)
            return blame(pump, TUNNEL_PEER_FAILED, result);
        for (int i = 0; i < count; i++)
            pump->result->client_bytes += pieces[i].len;
    }
}

static void upload_main(void *arg)
{
    struct pump *pump = arg;
    pump->upload_error = pump_up(pump);
    if (pump->upload_error == 0)
        stream_shutdown(pump->other);
    else
        stream_fail(pump->other, -ECONNABORTED); /* whoever reads from it must hear */
    pump->upload = NULL;
    if (pump->waiter)
        coro_wake(pump->waiter, 0);
    else
        note_half_closed(pump);
}

/* --- To the peer ------------------------------------------------------------------------------ */

static void release(struct io *io, struct io_buf *buf)
{
    while (buf) {
        struct io_buf *next = buf->next;
        io_buf_release(io, buf);
        buf = next;
    }
}

/* Hands on what the other stream has queued. */
static int pass_queued(struct pump *pump)
{
    struct slice pieces[BODY_SLICES_MAX];
    struct io_buf *held = NULL;
    struct io_buf **tail = &held;
    unsigned count = 0;
    while (count < BODY_SLICES_MAX && pump->other->first) {
        struct io_buf *buf = stream_take(pump->other);
        pieces[count++] = slice_of(buf->data, buf->len);
        *tail = buf;
        tail = &buf->next;
    }
    pump->moved_ms = io_now_ms(pump->io);
    int result = h2_output_send(pump->tunnel->output, pieces, count, false,
                                pump->tunnel->send_timeout_ms, pump->tunnel->deadline);
    pump->moved_ms = io_now_ms(pump->io);
    for (unsigned i = 0; i < count && result == 0; i++)
        pump->result->peer_bytes += pieces[i].len;
    release(pump->io, held);
    return result;
}

static int pump_down(struct pump *pump)
{
    for (;;) {
        int result = stream_wait_readable(pump->other, over_at(pump));
        if (result == -ETIMEDOUT && !over(pump))
            continue;
        if (result < 0)
            return blame(pump, TUNNEL_PEER_FAILED, result);
        bool end = result == 0;
        result = end ? h2_output_send(pump->tunnel->output, NULL, 0, true, 0, over_at(pump))
                     : pass_queued(pump);
        if (result == -ETIMEDOUT)
            over(pump);
        if (result < 0)
            return blame(pump, TUNNEL_CLIENT_FAILED, result);
        if (end)
            return 0;
    }
}

/* --- The whole -------------------------------------------------------------------------------- */

/* The other side has said all: the peer may go on, unless it says nothing. */
static int await_upload(struct pump *pump)
{
    int result = 0;
    note_half_closed(pump);
    pump->waiter = coro_self();
    while (pump->upload && result == 0) {
        result = wait_wake(pump->io, over_at(pump));
        if (result == -ETIMEDOUT && !over(pump))
            result = 0;
    }
    pump->waiter = NULL;
    return result < 0 ? blame(pump, TUNNEL_CLIENT_FAILED, result) : pump->upload_error;
}

static void stop_upload(struct pump *pump)
{
    if (pump->upload)
        coro_cancel(pump->upload);
    while (pump->upload) {
        pump->waiter = coro_self();
        coro_wait(NULL, NULL);
        pump->waiter = NULL;
    }
}

int h2_tunnel_run(const struct h2_tunnel *tunnel, struct tunnel_result *outcome)
{
    struct stream *other = tunnel->other;
    *outcome = (struct tunnel_result){.reason = TUNNEL_ENDED};
    struct pump pump = {
        .tunnel = tunnel,
        .other = other,
        .io = other->io,
        .moved_ms = io_now_ms(other->io),
        .result = outcome,
    };
    other->watch_hangup = false;
    pump.upload = coro_start(upload_main, &pump);
    int result = pump.upload ? pump_down(&pump) : blame(&pump, TUNNEL_CANCELLED, -ENOMEM);
    if (result == 0)
        result = await_upload(&pump);
    stop_upload(&pump);
    outcome->error = result;
    if (result == 0)
        stream_close(other);
    else
        stream_abort(other);
    return result;
}
