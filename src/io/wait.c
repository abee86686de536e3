#include "io/wait.h"

#include "base/clock.h"
#include "coro/coro.h"

#include <errno.h>

static void wake_timed_out(struct timer *timer)
{
    coro_wake(timer->owner, -ETIMEDOUT);
}

static void wake_cancelled(void *arg)
{
    coro_wake(arg, -ECANCELED);
}

int wait_wake(struct io *io, int64_t deadline)
{
    struct coro *self = coro_self();
    if (coro_cancelled())
        return -ECANCELED;
    if (deadline <= io_now_ms(io))
        return -ETIMEDOUT;
    struct timer timer;
    timer_init(&timer, wake_timed_out, self);
    timer_start(io_timers(io), &timer, deadline);
    int result = coro_wait(wake_cancelled, self);
    timer_stop(&timer);
    return result;
}

int wait_sleep(struct io *io, int64_t deadline)
{
    int result = wait_wake(io, deadline);
    return result == -ETIMEDOUT ? 0 : result;
}

/* One operation that a coroutine waits for; lives on its stack. */
struct op_wait {
    struct io *io;
    struct io_op *op;
    struct coro *coro;
    struct timer timer;
    int reason; /* -ETIMEDOUT or -ECANCELED once the end was asked for */
};

static void op_done(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct op_wait *wait = op->owner;
    coro_wake(wait->coro, result);
}

static void op_timed_out(struct timer *timer)
{
    struct op_wait *wait = timer->owner;
    wait->reason = -ETIMEDOUT;
    io_cancel(wait->io, wait->op);
}

static void op_cancelled(void *arg)
{
    struct op_wait *wait = arg;
    wait->reason = -ECANCELED;
    io_cancel(wait->io, wait->op);
}

int wait_op(struct io *io, struct io_op *op, int64_t deadline)
{
    struct op_wait wait = {.io = io, .op = op, .coro = coro_self()};
    if (coro_cancelled())
        return -ECANCELED;
    op->done = op_done;
    op->owner = &wait;
    timer_init(&wait.timer, op_timed_out, &wait);
    timer_start(io_timers(io), &wait.timer, deadline);
    io_submit(io, op);
    int result = coro_wait(op_cancelled, &wait);
    timer_stop(&wait.timer);
    return result == -ECANCELED && wait.reason ? wait.reason : result;
}
