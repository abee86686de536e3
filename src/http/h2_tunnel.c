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
    int64_t moved_ms;    /* when something went either way */
};

static int64_t idle_at(const struct pump *pump)
{
    uint32_t idle_ms = pump->tunnel->idle_timeout_ms;
    return idle_ms ? pump->moved_ms + idle_ms : DEADLINE_NEVER;
}

/* A wait has come to its deadline: has nothing moved the other way either? */
static bool idle(const struct pump *pump)
{
    return io_now_ms(pump->io) >= idle_at(pump);
}

/* --- From the peer ---------------------------------------------------------------------------- */

static int send_on(struct pump *pump, const struct slice *pieces, unsigned count)
{
    struct iovec iov[BODY_SLICES_MAX];
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){(void *)pieces[i].ptr, pieces[i].len};
    pump->moved_ms = io_now_ms(pump->io);
    return stream_send(pump->other, iov, count, DEADLINE_NEVER);
}

/* Returns 0 when the peer has ended its side. */
static int pump_up(struct pump *pump)
{
    struct body body;
    h2_input_body(pump->tunnel->input, &body, -1);
    for (;;) {
        struct slice pieces[BODY_SLICES_MAX];
        int count = body_read(&body, pieces, BODY_SLICES_MAX, idle_at(pump));
        if (count == -ETIMEDOUT && !idle(pump))
            continue;
        if (count <= 0)
            return count;
        int result = send_on(pump, pieces, (unsigned)count);
        if (result < 0)
            return result;
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
                                pump->tunnel->send_timeout_ms, DEADLINE_NEVER);
    release(pump->io, held);
    return result;
}

static int pump_down(struct pump *pump)
{
    for (;;) {
        int result = stream_wait_readable(pump->other, idle_at(pump));
        if (result == -ETIMEDOUT && !idle(pump))
            continue;
        if (result == 0)
            return h2_output_send(pump->tunnel->output, NULL, 0, true, 0, idle_at(pump));
        if (result > 0)
            result = pass_queued(pump);
        if (result < 0)
            return result;
    }
}

/* --- The whole -------------------------------------------------------------------------------- */

/* The other side has said all: the peer may go on, unless it says nothing. */
static int await_upload(struct pump *pump)
{
    int result = 0;
    pump->waiter = coro_self();
    while (pump->upload && result == 0) {
        result = wait_wake(pump->io, idle_at(pump));
        if (result == -ETIMEDOUT && !idle(pump))
            result = 0;
    }
    pump->waiter = NULL;
    return result < 0 ? result : pump->upload_error;
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

int h2_tunnel_run(const struct h2_tunnel *tunnel)
{
    struct stream *other = tunnel->other;
    struct pump pump = {
        .tunnel = tunnel,
        .other = other,
        .io = other->io,
        .moved_ms = io_now_ms(other->io),
    };
    other->watch_hangup = false;
    pump.upload = coro_start(upload_main, &pump);
    int result = pump.upload ? pump_down(&pump) : -ENOMEM;
    if (result == 0)
        result = await_upload(&pump);
    stop_upload(&pump);
    if (result == 0)
        stream_close(other);
    else
        stream_abort(other);
    return result;
}
