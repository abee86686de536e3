#include "server/slices.h"

#include <errno.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "script/interrupt.h"

/* A slice takes as long as what was done since the last one, so that half of the time is left to
 * either. */
enum { SLICE_MIN_US = 200, SLICE_MAX_US = 1000 };

void slices_init(struct slices *slices)
{
    *slices = (struct slices){0};
    list_init(&slices->jobs);
}

void slices_add(struct slices *slices, struct slice_job *job)
{
    list_push_back(&slices->jobs, &job->link);
}

static void run_job(void *arg)
{
    struct slice_job *job = arg;
    job->fn(job);
}

/* Takes the first job, and does it at once if it cannot be done in parts. */
static void begin(struct slices *slices)
{
    struct slice_job *job = container_of(slices->jobs.next, struct slice_job, link);
    list_remove(&job->link);
    slices->current = coro_job_create(run_job, job);
    if (!slices->current)
        job->fn(job);
}

static void step(struct slices *slices, int64_t until_us)
{
    slices->until_us = until_us;
    if (!slices->current)
        begin(slices);
    if (slices->current && coro_job_step(slices->current))
        slices->current = NULL;
    slices->paused_cpu_us = clock_cpu_us();
}

void slices_step(struct slices *slices)
{
    if (!slices_busy(slices))
        return;
    int64_t slice_us = clock_cpu_us() - slices->paused_cpu_us;
    if (slice_us < SLICE_MIN_US || !slices->current)
        slice_us = SLICE_MIN_US;
    step(slices, clock_now_us() + (slice_us < SLICE_MAX_US ? slice_us : SLICE_MAX_US));
}

void slices_finish(struct slices *slices)
{
    while (slices_busy(slices))
        step(slices, INT64_MAX);
}

void slices_pause(void *arg)
{
    const struct slices *slices = arg;
    if (!slices->current || clock_now_us() < slices->until_us)
        return;
    int error = errno;
    interrupt_put_aside();
    coro_job_pause();
    interrupt_take_up();
    errno = error;
}
