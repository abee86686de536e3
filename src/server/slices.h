/*
 * Long work of a worker, done in slices between the turns of its loop: a request waits for a slice
 * no longer than for the requests of a turn, however long the whole takes.
 *
 *   slices_add ──▶ job ──▶ job ──▶ current, on a stack of its own
 *                                    │ slices_pause, when the slice is over
 *   turn, slices_step, turn, slices_step, ...
 */
#ifndef SERVER_SLICES_H
#define SERVER_SLICES_H

#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct coro;

/* To be embedded; the owner's again, or gone, when `fn` returns. */
struct slice_job {
    struct list link;
    void (*fn)(struct slice_job *job); /* must not wait */
};

struct slices {
    struct list jobs;      /* that have not begun */
    struct coro *current;  /* the one that has; NULL: none */
    int64_t until_us;      /* of this slice, monotonic */
    int64_t paused_cpu_us; /* of the process, when the last slice was over */
};

void slices_init(struct slices *slices);

/* Appends a job. */
void slices_add(struct slices *slices, struct slice_job *job);

static inline bool slices_busy(const struct slices *slices)
{
    return slices->current || !list_empty(&slices->jobs);
}

/* Does a slice of the first job; all of it if there is no memory for its stack. Not within a job.
 */
void slices_step(struct slices *slices);

/* Does all there is. Not within a job. */
void slices_finish(struct slices *slices);

/* For jobs, often: ends the slice if its time is over. Keeps errno. */
void slices_pause(void *slices);

#endif
