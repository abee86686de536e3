#include "server/trim.h"

#include <malloc.h>

#include "base/blocks.h"
#include "base/clock.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "script/script.h"

enum {
    EVERY_MS = 1000,
    CALM_US = EVERY_MS * 1000 / 10, /* a calm worker computes for less between two looks */
    WORK_US = 10000,                /* what takes less leaves little behind */
    PAUSE_PART = 1000,              /* trimming malloc takes at most this part of the time */
};

static bool trim_pools(const struct trim *trim)
{
    coro_trim();
    bool buffers = io_trim(trim->io);
    bool exchanges = exchange_trim();
    return blocks_trim() || buffers || exchanges;
}

/* It looks at each free chunk, and the kernel at each page, so it is left to calm times. */
static void trim_malloc(struct trim *trim)
{
    int64_t began_us = clock_now_us();
    malloc_trim(0);
    int64_t ended_us = clock_now_us();
    trim->not_before_us = ended_us + (ended_us - began_us) * PAUSE_PART;
    trim->trimmed_cpu_us = clock_cpu_us();
    trim->freed = false;
}

static void look(struct timer *timer)
{
    struct trim *trim = timer->owner;
    int64_t cpu_us = clock_cpu_us();
    bool calm = cpu_us - trim->cpu_us < CALM_US;
    trim->freed |= trim_pools(trim);
    trim->cpu_us = cpu_us;
    if (calm) {
        io_dry(trim->io);
        script_trim(*trim->site);
    }
    if (calm && (trim->freed || cpu_us - trim->trimmed_cpu_us >= WORK_US) &&
        clock_now_us() >= trim->not_before_us)
        trim_malloc(trim);
    timer_start(io_timers(trim->io), timer, io_now_ms(trim->io) + EVERY_MS);
}

void trim_begin(struct trim *trim, struct io *io, struct site *const *site)
{
    *trim = (struct trim){.io = io, .site = site, .cpu_us = clock_cpu_us()};
    timer_init(&trim->timer, look, trim);
    timer_start(io_timers(io), &trim->timer, io_now_ms(io) + EVERY_MS);
}

void trim_end(struct trim *trim)
{
    timer_stop(&trim->timer);
}
