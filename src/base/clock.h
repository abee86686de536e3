/* Clocks. Deadlines are absolute milliseconds of the monotonic clock. Never suspends. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define DEADLINE_NEVER INT64_MAX  /* wait for ever */
#define DEADLINE_NOW   INT64_C(0) /* do not wait at all: -ETIMEDOUT where waiting is needed */

static inline int64_t clock_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline int64_t clock_now_ms(void)
{
    return clock_now_us() / 1000;
}

/* What this process has computed since its start. */
static inline int64_t clock_cpu_us(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

#endif
