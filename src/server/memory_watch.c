#include "server/memory_watch.h"

#include "base/log.h"
#include "script/script.h"

enum {
    RESTARTS_MAX = 5, /* in a row */
    DELAY_MS = 1000,  /* after the first; doubled after each */
    CALM_MS = 60000,  /* what lives that long begins anew */
    MEBIBYTE = 1 << 20,
};

static unsigned mebibytes(uint64_t bytes)
{
    return (unsigned)(bytes / MEBIBYTE);
}

/* Old generations go when their last request or tunnel has ended, which may take for ever. */
static bool old_ones_hold_too_much(const struct script_memory_use *use)
{
    return use->all - use->used > use->max;
}

static enum memory_verdict judge(struct memory_watch *watch, const struct script_memory_use *use)
{
    if (old_ones_hold_too_much(use)) {
        log_error(
            "the site's Lua holds %u MiB, and that of generations that were replaced, but are "
            "still in use, %u MiB; lua_memory_max is %u MiB: this worker ends",
            mebibytes(use->used), mebibytes(use->all - use->used), mebibytes(use->max));
        return MEMORY_END;
    }
    if (watch->restarts == RESTARTS_MAX) {
        log_error("the site's Lua holds %u MiB, lua_memory_max is %u MiB: loading it anew has not "
                  "helped %d times, this worker ends",
                  mebibytes(use->used), mebibytes(use->max), RESTARTS_MAX);
        return MEMORY_END;
    }
    log_error(
        "the site's Lua holds %u MiB, lua_memory_max is %u MiB: does it keep what it needs no "
        "more? The site is loaded anew in this worker",
        mebibytes(use->used), mebibytes(use->max));
    return MEMORY_RESTART;
}

enum memory_verdict memory_watch_judge(struct memory_watch *watch, struct site *site,
                                       int64_t now_ms)
{
    if (now_ms < watch->next_ms)
        return MEMORY_FINE;
    struct script_memory_use use = script_memory_collect(site);
    if (!script_memory_over(site))
        return MEMORY_FINE;
    if (now_ms - watch->restarted_ms >= CALM_MS)
        watch->restarts = 0;
    enum memory_verdict verdict = judge(watch, &use);
    watch->restarted_ms = now_ms;
    watch->next_ms = now_ms + ((int64_t)DELAY_MS << watch->restarts);
    watch->restarts++;
    return verdict;
}
