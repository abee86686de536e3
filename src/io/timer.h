/*
 * A hierarchical timing wheel of 1 ms ticks: starting and stopping a timer is O(1) and touches no
 * kernel, so that a timer may be armed and cancelled at every wait. Never suspends.
 */
#ifndef IO_TIMER_H
#define IO_TIMER_H

#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

enum { TIMER_LEVELS = 5, TIMER_SLOTS = 64 }; /* 64^5 ms is 12 days; farther ones are re-filed */

struct timer {
    struct list link;                  /* in a slot of the wheel, or alone */
    int64_t at_ms;                     /* absolute monotonic milliseconds */
    void (*fire)(struct timer *timer); /* called once; may start it again, or free it */
    void *owner;                       /* for the caller's use */
};

struct timer_wheel {
    int64_t now_ms;                  /* everything due at or before it has fired */
    uint64_t occupied[TIMER_LEVELS]; /* a bit for every slot that may hold a timer */
    struct list slots[TIMER_LEVELS][TIMER_SLOTS];
};

void timer_wheel_init(struct timer_wheel *wheel, int64_t now_ms);

/* Prepares a timer; must precede any start or stop. */
void timer_init(struct timer *timer, void (*fire)(struct timer *timer), void *owner);

/* (Re)starts it. A time that has passed fires at the next advance. DEADLINE_NEVER only stops it. */
void timer_start(struct timer_wheel *wheel, struct timer *timer, int64_t at_ms);

/* Stops it; harmless on one that is not started. */
void timer_stop(struct timer *timer);

static inline bool timer_armed(const struct timer *timer)
{
    return !list_empty(&timer->link);
}

/* Fires everything due at or before now_ms. True if there was anything. */
bool timer_wheel_advance(struct timer_wheel *wheel, int64_t now_ms);

/* When advance must be called next: a lower bound of the earliest timer, DEADLINE_NEVER if none. */
int64_t timer_wheel_next_ms(const struct timer_wheel *wheel);

#endif
