/* The timing wheel: exact firing times against a plain model, and its life-cycle rules. */
#include "base/clock.h"
#include "io/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TIMERS = 2000 };

struct probe {
    struct timer timer;
    int64_t expected_ms; /* DEADLINE_NEVER: must not fire */
    unsigned fired;
};

static struct timer_wheel wheel;
static struct probe probes[TIMERS];
static int64_t last_fired_at_ms;

static void fire(struct timer *timer)
{
    struct probe *probe = timer->owner;
    assert_true(timer->at_ms >= last_fired_at_ms);
    last_fired_at_ms = timer->at_ms;
    assert_false(timer_armed(timer));
    probe->fired++;
}

static void start_probe(struct probe *probe, int64_t at_ms)
{
    probe->fired = 0;
    probe->expected_ms = at_ms;
    timer_init(&probe->timer, fire, probe);
    timer_start(&wheel, &probe->timer, at_ms);
}

static int64_t random_delay_ms(void)
{
    unsigned bits = (unsigned)rand() % 38;
    uint64_t wide = (uint64_t)rand() << 31 | (uint64_t)rand();
    return (int64_t)(wide & ((UINT64_C(1) << bits) - 1));
}

/* Jumps from one "next" to the next and checks that each timer fires at its very millisecond. */
static void fires_each_timer_at_its_time(void **state)
{
    (void)state;
    srand(7);
    int64_t start_ms = 123456789;
    timer_wheel_init(&wheel, start_ms);
    for (unsigned i = 0; i < TIMERS; i++)
        start_probe(&probes[i], start_ms + random_delay_ms());

    last_fired_at_ms = 0;
    unsigned left = TIMERS;
    while (left) {
        int64_t next_ms = timer_wheel_next_ms(&wheel);
        assert_true(next_ms >= wheel.now_ms && next_ms < DEADLINE_NEVER);
        timer_wheel_advance(&wheel, next_ms);
        for (unsigned i = 0; i < TIMERS; i++) {
            if (probes[i].expected_ms == DEADLINE_NEVER)
                continue;
            assert_int_equal(probes[i].fired, probes[i].expected_ms <= next_ms);
            if (probes[i].fired) {
                probes[i].expected_ms = DEADLINE_NEVER;
                left--;
            }
        }
    }
    assert_true(timer_wheel_next_ms(&wheel) == DEADLINE_NEVER);
}

/* Random steps, with timers stopped and restarted meanwhile. */
static void keeps_pace_with_random_steps(void **state)
{
    (void)state;
    srand(11);
    int64_t now_ms = 1;
    timer_wheel_init(&wheel, now_ms);
    for (unsigned i = 0; i < TIMERS; i++)
        start_probe(&probes[i], now_ms + random_delay_ms() % 100000);
    for (unsigned round = 0; round < 3000; round++) {
        struct probe *probe = &probes[(unsigned)rand() % TIMERS];
        if (rand() % 2) {
            timer_stop(&probe->timer);
            probe->expected_ms = DEADLINE_NEVER;
            probe->fired = 0;
        } else {
            probe->fired = 0;
            probe->expected_ms = now_ms + random_delay_ms() % 5000;
            timer_start(&wheel, &probe->timer, probe->expected_ms);
        }
        now_ms += rand() % 150;
        last_fired_at_ms = 0;
        timer_wheel_advance(&wheel, now_ms);
        for (unsigned i = 0; i < TIMERS; i++)
            assert_int_equal(probes[i].fired, probes[i].expected_ms <= now_ms);
    }
}

static void fires_a_passed_time_at_the_next_advance(void **state)
{
    (void)state;
    timer_wheel_init(&wheel, 1000);
    start_probe(&probes[0], 10);
    assert_int_equal(timer_wheel_next_ms(&wheel), 1000);
    assert_int_equal(probes[0].fired, 0);
    last_fired_at_ms = 0;
    timer_wheel_advance(&wheel, 1000);
    assert_int_equal(probes[0].fired, 1);
    timer_wheel_advance(&wheel, 2000);
    assert_int_equal(probes[0].fired, 1);
}

static void never_only_stops(void **state)
{
    (void)state;
    timer_wheel_init(&wheel, 1000);
    start_probe(&probes[0], 1010);
    timer_start(&wheel, &probes[0].timer, DEADLINE_NEVER);
    assert_false(timer_armed(&probes[0].timer));
    timer_wheel_advance(&wheel, 5000);
    assert_int_equal(probes[0].fired, 0);
}

static void fire_and_restart(struct timer *timer)
{
    struct probe *probe = timer->owner;
    probe->fired++;
    timer_start(&wheel, timer, 0);
}

/* A callback that restarts its timer in the past must not keep advance from returning. */
static void a_timer_restarted_by_its_callback_waits_for_the_next_advance(void **state)
{
    (void)state;
    timer_wheel_init(&wheel, 1000);
    timer_init(&probes[0].timer, fire_and_restart, &probes[0]);
    probes[0].fired = 0;
    timer_start(&wheel, &probes[0].timer, 1100);
    timer_wheel_advance(&wheel, 3000);
    assert_int_equal(probes[0].fired, 1);
    assert_int_equal(timer_wheel_next_ms(&wheel), 3000);
    timer_wheel_advance(&wheel, 3000);
    assert_int_equal(probes[0].fired, 2);
}

static void fire_and_stop_the_other(struct timer *timer)
{
    struct probe *probe = timer->owner;
    probe->fired++;
    timer_stop(&probes[1].timer);
}

static void a_callback_may_stop_a_timer_that_is_due_too(void **state)
{
    (void)state;
    timer_wheel_init(&wheel, 1000);
    timer_init(&probes[0].timer, fire_and_stop_the_other, &probes[0]);
    probes[0].fired = 0;
    timer_start(&wheel, &probes[0].timer, 1100);
    start_probe(&probes[1], 1101);
    timer_wheel_advance(&wheel, 3000);
    assert_int_equal(probes[0].fired, 1);
    assert_int_equal(probes[1].fired, 0);
    assert_false(timer_armed(&probes[1].timer));
}

static void fire_and_free(struct timer *timer)
{
    free(timer->owner);
}

static void a_callback_may_free_its_timer(void **state)
{
    (void)state;
    timer_wheel_init(&wheel, 1000);
    struct probe *probe = malloc(sizeof(*probe));
    timer_init(&probe->timer, fire_and_free, probe);
    timer_start(&wheel, &probe->timer, 1001);
    timer_wheel_advance(&wheel, 1001);
    assert_true(timer_wheel_next_ms(&wheel) == DEADLINE_NEVER);
}

static void time_never_goes_back(void **state)
{
    (void)state;
    timer_wheel_init(&wheel, 1000);
    start_probe(&probes[0], 1500);
    timer_wheel_advance(&wheel, 1400);
    timer_wheel_advance(&wheel, 1200);
    assert_int_equal(wheel.now_ms, 1400);
    last_fired_at_ms = 0;
    timer_wheel_advance(&wheel, 1500);
    assert_int_equal(probes[0].fired, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_each_timer_at_its_time),
        cmocka_unit_test(keeps_pace_with_random_steps),
        cmocka_unit_test(fires_a_passed_time_at_the_next_advance),
        cmocka_unit_test(never_only_stops),
        cmocka_unit_test(a_timer_restarted_by_its_callback_waits_for_the_next_advance),
        cmocka_unit_test(a_callback_may_stop_a_timer_that_is_due_too),
        cmocka_unit_test(a_callback_may_free_its_timer),
        cmocka_unit_test(time_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
