#include "server/background.h"

#include <errno.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "script/interrupt.h"

/* A slice takes as long as what was done since the last one, so that half of the time is left to
 * either. */
enum { SLICE_MIN_US = 100, SLICE_MAX_US = 5000 };

void background_init(struct background *background)
{
    *background = (struct background){0};
    list_init(&background->jobs);
}

void background_add(struct background *background, struct background_job *job)
{
    list_push_back(&background->jobs, &job->link);
}

static void run_job(void *arg)
{
    struct background_job *job = arg;
    job->fn(job);
}

/* Takes the first job, and does it at once if it cannot be done in parts. */
static void begin(struct background *background)
{
    struct background_job *job = container_of(background->jobs.next, struct background_job, link);
    list_remove(&job->link);
    background->current = coro_job_create(run_job, job);
    if (!background->current)
        job->fn(job);
}

static void step(struct background *background, int64_t until_us)
{
    background->until_us = until_us;
    if (!background->current)
        begin(background);
    if (background->current && coro_job_step(background->current))
        background->current = NULL;
    background->paused_cpu_us = clock_cpu_us();
}

void background_step(struct background *background)
{
    if (!background_busy(background))
        return;
    int64_t slice_us = clock_cpu_us() - background->paused_cpu_us;
    if (slice_us < SLICE_MIN_US || !background->current)
        slice_us = SLICE_MIN_US;
    step(background, clock_now_us() + (slice_us < SLICE_MAX_US ? slice_us : SLICE_MAX_US));
}

void background_finish(struct background *background)
{
    while (background_busy(background))
        step(background, INT64_MAX);
}

void background_pause(void *background)
{
    const struct background *self = background;
    bool in_job = self->current && coro_self() == self->current;
    if (!in_job || clock_now_us() < self->until_us)
        return;
    int error = errno;
    interrupt_put_aside();
    coro_job_pause();
    interrupt_take_up();
    errno = error;
}
