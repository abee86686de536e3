/* Bounded waits of coroutines: coro_wait with a deadline. */
#ifndef IO_WAIT_H
#define IO_WAIT_H

#include "io/io.h"

#include <stdint.h>

/* Suspends the running coroutine until somebody calls coro_wake on it (that result is returned),
 * the deadline passes (-ETIMEDOUT) or it is cancelled (-ECANCELED). */
int wait_wake(struct io *io, int64_t deadline);

/* Sleeps until the deadline. Returns 0, or -ECANCELED. */
int wait_sleep(struct io *io, int64_t deadline);

/* Submits a one-shot operation and suspends until it has ended; on the deadline or on cancellation
 * it is cancelled and its end awaited, so that its memory may live on the caller's stack. Returns
 * its result, -ETIMEDOUT or -ECANCELED. Sets op->done and op->owner. */
int wait_op(struct io *io, struct io_op *op, int64_t deadline);

#endif
