/*
 * Every timer lies in the slot of the highest base-64 digit in which its time differs from now:
 *
 *   level 0: 64 slots of 1 ms       the present 64 ms
 *   level 1: 64 slots of 64 ms      the present 4 s
 *   level 2: 64 slots of 4 s  ...   and so on; the last level is circular
 *
 * When time reaches the start of a slot above level 0, its timers are filed again and fall to lower
 * levels. So a timer moves at most TIMER_LEVELS times, and one that is stopped early, as nearly all
 * are, mostly never.
 */
#include "io/timer.h"

#include "base/clock.h"

#include <assert.h>

enum { DIGIT_BITS = 6, SLOT_MASK = TIMER_SLOTS - 1, TOP = TIMER_LEVELS - 1 };

static void file_timer(struct timer_wheel *wheel, struct timer *timer);
static int64_t next_slot(const struct timer_wheel *wheel, unsigned *level, unsigned *slot);

void timer_wheel_init(struct timer_wheel *wheel, int64_t now_ms)
{
    assert(now_ms >= 0);
    *wheel = (struct timer_wheel){.now_ms = now_ms};
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&wheel->slots[level][slot]);
}

void timer_init(struct timer *timer, void (*fire)(struct timer *timer), void *owner)
{
    *timer = (struct timer){.fire = fire, .owner = owner};
    list_init(&timer->link);
}

void timer_start(struct timer_wheel *wheel, struct timer *timer, int64_t at_ms)
{
    list_remove(&timer->link);
    timer->at_ms = at_ms;
    if (at_ms != DEADLINE_NEVER)
        file_timer(wheel, timer);
}

void timer_stop(struct timer *timer)
{
    list_remove(&timer->link);
}

bool timer_wheel_advance(struct timer_wheel *wheel, int64_t now_ms)
{
    /* All that is due is gathered first: what callbacks start anew waits for the next advance, and
     * a callback may stop a timer that was about to fire. */
    struct list due;
    list_init(&due);
    unsigned level = 0, slot = 0;
    int64_t at_ms;
    while ((at_ms = next_slot(wheel, &level, &slot)) <= now_ms) {
        struct list timers;
        wheel->now_ms = at_ms;
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        list_move_all(&timers, &wheel->slots[level][slot]);
        while (!list_empty(&timers)) {
            struct list *link = timers.next;
            list_remove(link);
            if (level == 0)
                list_push_back(&due, link);
            else
                file_timer(wheel, container_of(link, struct timer, link));
        }
    }
    if (now_ms > wheel->now_ms)
        wheel->now_ms = now_ms;
    bool any = !list_empty(&due);
    while (!list_empty(&due)) {
        struct timer *timer = container_of(due.next, struct timer, link);
        list_remove(&timer->link);
        timer->fire(timer);
    }
    return any;
}

int64_t timer_wheel_next_ms(const struct timer_wheel *wheel)
{
    unsigned level, slot;
    return next_slot(wheel, &level, &slot);
}

static void file_timer(struct timer_wheel *wheel, struct timer *timer)
{
    uint64_t now = (uint64_t)wheel->now_ms;
    uint64_t at = timer->at_ms > wheel->now_ms ? (uint64_t)timer->at_ms : now;
    unsigned level = at == now ? 0 : (63u - (unsigned)__builtin_clzll(at ^ now)) / DIGIT_BITS;
    if (level > TOP)
        level = TOP;
    uint64_t block = at >> (level * DIGIT_BITS);
    uint64_t reach = (now >> (TOP * DIGIT_BITS)) + SLOT_MASK;
    if (level == TOP && block > reach)
        block = reach;
    unsigned slot = block & SLOT_MASK;
    wheel->occupied[level] |= UINT64_C(1) << slot;
    list_push_back(&wheel->slots[level][slot], &timer->link);
}

/* Bits of the level, the one of the present slot lowest. */
static uint64_t from_present(uint64_t occupied, unsigned present)
{
    return present ? occupied >> present | occupied << (TIMER_SLOTS - present) : occupied;
}

/* The first slot that may hold timers and its start; DEADLINE_NEVER if there is none. Slots of a
 * lower level always come before those of a higher one. */
static int64_t next_slot(const struct timer_wheel *wheel, unsigned *level, unsigned *slot)
{
    uint64_t now = (uint64_t)wheel->now_ms;
    for (unsigned at = 0; at < TIMER_LEVELS; at++) {
        if (!wheel->occupied[at])
            continue;
        uint64_t block = now >> (at * DIGIT_BITS);
        unsigned present = block & SLOT_MASK;
        block += (unsigned)__builtin_ctzll(from_present(wheel->occupied[at], present));
        *level = at;
        *slot = block & SLOT_MASK;
        return (int64_t)(block << (at * DIGIT_BITS));
    }
    return DEADLINE_NEVER;
}
