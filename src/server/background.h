/*
 * Long work of a worker, done in slices between the turns of its loop: a request waits for a slice
 * no longer than for the requests of a turn, however long the whole takes.
 *
 *   background_add ──▶ job ──▶ job ──▶ current, on a stack of its own
 *                                    │ background_pause, when the slice is over
 *   turn, background_step, turn, background_step, ...
 */
#ifndef SERVER_BACKGROUND_H
#define SERVER_BACKGROUND_H

#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct coro;

/* To be embedded; the owner's again, or gone, when `fn` returns. */
struct background_job {
    struct list link;
    void (*fn)(struct background_job *job); /* must not wait */
};

struct background {
    struct list jobs;      /* that have not begun */
    struct coro *current;  /* the one that has; NULL: none */
    int64_t until_us;      /* of this slice, monotonic */
    int64_t paused_cpu_us; /* of the process, when the last slice was over */
};

void background_init(struct background *background);

/* Appends a job. */
void background_add(struct background *background, struct background_job *job);

static inline bool background_busy(const struct background *background)
{
    return background->current || !list_empty(&background->jobs);
}

/* Does a slice of the first job; all of it if there is no memory for its stack. Not within a job.
 */
void background_step(struct background *background);

/* Does all there is. Not within a job. */
void background_finish(struct background *background);

/* For jobs, often: ends the slice if its time is over. Keeps errno. Elsewhere it does nothing, even
 * while a job is put aside. */
void background_pause(void *background);

#endif
