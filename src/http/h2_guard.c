#include "http/h2_guard.h"

#include <stddef.h>

enum {
    EARNED_BY_DATA = 2,    /* WINDOW_UPDATEs of stream and connection */
    EARNED_BY_REQUEST = 4, /* and a PING, and some slack */
};

static void begin_window(struct h2_guard *guard, int64_t now_ms)
{
    *guard = (struct h2_guard){.window_start_ms = now_ms};
}

const char *h2_guard_count(struct h2_guard *guard, const struct h2_guard_limits *limits,
                           enum h2_event event, int64_t now_ms)
{
    if (now_ms - guard->window_start_ms >= H2_GUARD_WINDOW_MS)
        begin_window(guard, now_ms);
    switch (event) {
    case H2_EVENT_REQUEST:
        guard->requests++;
        guard->earned += EARNED_BY_REQUEST;
        return NULL;
    case H2_EVENT_DATA:
        guard->earned += EARNED_BY_DATA;
        return NULL;
    case H2_EVENT_RESET:
        guard->resets++;
        return guard->resets > limits->resets_max && guard->resets > guard->requests / 2
                   ? "resets of streams"
                   : NULL;
    case H2_EVENT_FAULT:
        guard->faults++;
        return guard->faults > limits->faults_max ? "stream errors" : NULL;
    case H2_EVENT_CONTROL:
        guard->control++;
        return guard->control > limits->control_max &&
                       guard->control - limits->control_max > guard->earned
                   ? "control frames"
                   : NULL;
    }
    return NULL;
}
