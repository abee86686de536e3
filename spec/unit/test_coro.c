/* Coroutines: start, wait, wake, cancel, the way to the main stack, and bounded waits on both back
 * ends. */
#include "support/loop.h"

#include "coro/stack.h"
#include "io/wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char trace[64]; /* what happened, a letter each */

static void note(char letter)
{
    size_t len = strlen(trace);
    assert_true(len + 1 < sizeof(trace));
    trace[len] = letter;
    trace[len + 1] = '\0';
}

static int setup(void **state)
{
    (void)state;
    trace[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(coro_count(), 0);
    coro_fini();
    assert_int_equal(coro_stacks_cached(), 0);
    return 0;
}

static void note_arg(void *arg)
{
    assert_non_null(coro_self());
    note(*(char *)arg);
}

static void start_queues_and_main_runs_in_order(void **state)
{
    (void)state;
    assert_false(coro_any_ready());
    assert_non_null(coro_start(note_arg, "a"));
    assert_non_null(coro_start(note_arg, "b"));
    assert_string_equal(trace, "");
    assert_int_equal(coro_count(), 2);
    assert_true(coro_any_ready());
    coro_run_ready();
    assert_string_equal(trace, "ab");
    assert_int_equal(coro_count(), 0);
    assert_null(coro_self());
    coro_run_ready(); /* nothing to do */
}

static struct coro *waiter;
static int waited;

static void wait_twice(void *arg)
{
    (void)arg;
    waiter = coro_self();
    note('1');
    waited = coro_wait(NULL, NULL);
    note('2');
    waited = coro_wait(NULL, NULL);
    note('3');
}

static void a_wake_queues_and_the_first_one_wins(void **state)
{
    (void)state;
    coro_start(wait_twice, NULL);
    coro_run_ready();
    assert_string_equal(trace, "1");
    coro_wake(waiter, 7);
    coro_wake(waiter, 8); /* too late */
    assert_string_equal(trace, "1");
    coro_run_ready();
    assert_string_equal(trace, "12");
    assert_int_equal(waited, 7);
    coro_wake(waiter, -5);
    coro_run_ready();
    assert_int_equal(waited, -5);
    assert_string_equal(trace, "123");
}

static void spawn(void *arg)
{
    note('p');
    coro_start(note_arg, arg);
    note('q');
}

static void a_coroutine_may_start_others(void **state)
{
    (void)state;
    coro_start(spawn, "c");
    coro_run_ready();
    assert_string_equal(trace, "pqc");
}

static void on_cancel(void *arg)
{
    note('x');
    coro_wake(arg, -ECANCELED);
}

static void wait_for_cancel(void *arg)
{
    (void)arg;
    waiter = coro_self();
    assert_false(coro_cancelled());
    waited = coro_wait(on_cancel, waiter);
    note('1');
    assert_int_equal(waited, -ECANCELED);
    assert_true(coro_cancelled());
    waited = coro_wait(on_cancel, waiter); /* at once, and for good */
    note('2');
    assert_int_equal(waited, -ECANCELED);
}

static void cancelling_ends_this_wait_and_all_later_ones(void **state)
{
    (void)state;
    coro_start(wait_for_cancel, NULL);
    coro_run_ready();
    assert_string_equal(trace, "");
    coro_cancel(waiter);
    coro_cancel(waiter); /* once is enough */
    coro_run_ready();
    assert_string_equal(trace, "x1x2");
    assert_false(coro_cancelled());
}

static void wait_protected(void *arg)
{
    (void)arg;
    waiter = coro_self();
    waited = coro_wait(NULL, NULL);
    note('1');
    assert_true(coro_cancelled());
}

static void an_uncancellable_wait_goes_on(void **state)
{
    (void)state;
    coro_start(wait_protected, NULL);
    coro_run_ready();
    coro_cancel(waiter);
    coro_run_ready();
    assert_string_equal(trace, "");
    coro_wake(waiter, 3);
    coro_run_ready();
    assert_int_equal(waited, 3);
    assert_string_equal(trace, "1");
}

static void a_wake_before_the_cancel_wins(void **state)
{
    (void)state;
    coro_start(wait_protected, NULL);
    coro_run_ready();
    coro_wake(waiter, 4);
    coro_cancel(waiter);
    coro_run_ready();
    assert_int_equal(waited, 4);
}

#define here() ((uintptr_t)__builtin_frame_address(0))

static uintptr_t main_at;

static void run_on_main(void *arg)
{
    assert_null(coro_self());
    uintptr_t at = here();
    uintptr_t distance = at > main_at ? at - main_at : main_at - at;
    assert_true(distance < 1 << 20);
    coro_start(note_arg, "n"); /* only queued */
    note(*(char *)arg);
}

static void ask_main(void *arg)
{
    uintptr_t at = here();
    uintptr_t distance = at > main_at ? at - main_at : main_at - at;
    assert_true(distance > 1 << 20);
    note('1');
    coro_on_main(run_on_main, arg);
    note('2');
    coro_on_main(run_on_main, arg);
    note('3');
    assert_non_null(coro_self());
}

static void work_for_the_main_stack_runs_there_at_once(void **state)
{
    (void)state;
    main_at = here();
    coro_start(ask_main, "m");
    coro_run_ready();
    assert_string_equal(trace, "1m2m3nn");
    coro_on_main(run_on_main, "d"); /* from main: a plain call */
    assert_string_equal(trace, "1m2m3nnd");
    coro_run_ready();
}

static void stack_address(void *arg)
{
    *(uintptr_t *)arg = here();
}

static void stacks_are_reused(void **state)
{
    (void)state;
    uintptr_t first = 0, second = 0;
    coro_start(stack_address, &first);
    coro_run_ready();
    assert_int_equal(coro_stacks_cached(), 1);
    coro_start(stack_address, &second);
    assert_int_equal(coro_stacks_cached(), 0);
    coro_run_ready();
    assert_int_equal(first, second);
}

static unsigned woken;

static void wait_and_count(void *arg)
{
    struct coro **self = arg;
    *self = coro_self();
    if (coro_wait(NULL, NULL) == 1)
        woken++;
}

static void many_wait_at_once(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    static struct coro *all[MANY];
    woken = 0;
    for (unsigned i = 0; i < MANY; i++)
        assert_non_null(coro_start(wait_and_count, &all[i]));
    coro_run_ready();
    assert_int_equal(coro_count(), MANY);
    for (unsigned i = 0; i < MANY; i++)
        coro_wake(all[MANY - 1 - i], 1);
    coro_run_ready();
    assert_int_equal(woken, MANY);
    assert_true(coro_stacks_cached() > 0 && coro_stacks_cached() <= MANY);
}

/* Has the page at the top of a stack that is kept any memory? */
static bool top_is_in_memory(uintptr_t at)
{
    unsigned char in_memory = 0;
    assert_int_equal(mincore((void *)(at & ~(uintptr_t)4095), 4096, &in_memory), 0);
    return in_memory & 1;
}

static void stacks_that_lie_unused_hold_no_memory(void **state)
{
    (void)state;
    enum { MANY = 50 };
    uintptr_t at[MANY], again = 0;
    for (unsigned i = 0; i < MANY; i++)
        coro_start(stack_address, &at[i]);
    coro_run_ready();
    coro_trim();
    assert_false(top_is_in_memory(at[0]));
    assert_true(top_is_in_memory(at[MANY - 1])); /* the next one to be used */
    for (unsigned i = 0; i < 10; i++)
        coro_trim();
    assert_int_equal(coro_stacks_cached(), MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_false(top_is_in_memory(at[i]));
    coro_start(stack_address, &again);
    coro_run_ready();
    assert_int_equal(again, at[MANY - 1]);
    assert_true(top_is_in_memory(again));
}

/* Floating point and callee-saved registers live across a switch. */
static void compute(void *arg)
{
    double *sum = arg;
    double a = 1.5, b = 2.25;
    struct coro *self = coro_self();
    for (unsigned i = 0; i < 10; i++) {
        coro_wake(self, 0); /* ignored: not waiting */
        a = a * 1.25 + b;
        waiter = self;
        coro_wait(NULL, NULL);
        b = b / 2 + a;
    }
    *sum = a + b;
}

static void registers_survive_a_switch(void **state)
{
    (void)state;
    double expected, a = 1.5, b = 2.25, result = 0;
    for (unsigned i = 0; i < 10; i++) {
        a = a * 1.25 + b;
        b = b / 2 + a;
    }
    expected = a + b;
    coro_start(compute, &result);
    for (unsigned i = 0; i < 10; i++) {
        coro_run_ready();
        coro_wake(waiter, 0);
    }
    coro_run_ready();
    assert_true(result == expected);
}

/* A stack that overflows hits its guard instead of a neighbour's memory. */
static void a_stack_has_a_guard_below_it(void **state)
{
    (void)state;
    struct stack stack;
    assert_int_equal(stack_get(&stack), 0);
    assert_true(stack.bytes >= 64 * 1024);
    memset(stack.base, 1, stack.bytes);
    pid_t child = fork();
    if (child == 0) {
        fclose(stderr);           /* a sanitizer would report it there */
        signal(SIGSEGV, SIG_DFL); /* cmocka would take it for a failed test */
        ((volatile char *)stack.base)[-1] = 1;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    stack_put(&stack);
}

/* --- Bounded waits ---------------------------------------------------------------------------- */

static int64_t took_ms;

static void sleep_main(void *arg)
{
    int64_t start_ms = io_now_ms(loop);
    waited = wait_sleep(loop, start_ms + *(int *)arg);
    took_ms = io_now_ms(loop) - start_ms;
}

static void sleeps(void **state)
{
    (void)state;
    coro_start(sleep_main, &(int){30});
    loop_run_coroutines();
    assert_int_equal(waited, 0);
    assert_true(took_ms >= 30 && took_ms < 5000);
}

static void sleep_cancelled_main(void *arg)
{
    waiter = coro_self();
    sleep_main(arg);
}

static void a_sleep_can_be_cancelled(void **state)
{
    (void)state;
    coro_start(sleep_cancelled_main, &(int){1000000});
    coro_run_ready();
    coro_cancel(waiter);
    loop_run_coroutines();
    assert_int_equal(waited, -ECANCELED);
}

static int pair[2];

static void poll_main(void *arg)
{
    struct io_op op = {.kind = IO_OP_POLL, .fd = pair[0], .events = POLLIN};
    waiter = coro_self();
    waited = wait_op(loop, &op, io_now_ms(loop) + *(int *)arg);
    assert_false(io_op_in_flight(&op));
}

static void operations_end_in_time_or_are_taken_back(void **state)
{
    (void)state;
    open_local_pair(pair);
    coro_start(poll_main, &(int){20});
    loop_run_coroutines();
    assert_int_equal(waited, -ETIMEDOUT);

    coro_start(poll_main, &(int){1000000});
    coro_run_ready();
    assert_int_equal(io_turn(loop, 0), 0);
    coro_cancel(waiter);
    loop_run_coroutines();
    assert_int_equal(waited, -ECANCELED);

    coro_start(poll_main, &(int){1000000});
    coro_run_ready();
    assert_int_equal(write(pair[1], "x", 1), 1);
    loop_run_coroutines();
    assert_int_equal(waited, POLLIN);
    close(pair[0]);
    close(pair[1]);
}

static void wake_main(void *arg)
{
    waiter = coro_self();
    waited = wait_wake(loop, *(int64_t *)arg);
}

static void a_wake_is_awaited_until_a_deadline(void **state)
{
    (void)state;
    int64_t never = DEADLINE_NEVER, now = DEADLINE_NOW, soon = io_now_ms(loop) + 15;
    coro_start(wake_main, &never);
    coro_run_ready();
    coro_wake(waiter, 5);
    loop_run_coroutines();
    assert_int_equal(waited, 5);
    coro_start(wake_main, &now);
    coro_run_ready();
    assert_int_equal(coro_count(), 0); /* it did not suspend */
    assert_int_equal(waited, -ETIMEDOUT);
    coro_start(wake_main, &soon);
    loop_run_coroutines();
    assert_int_equal(waited, -ETIMEDOUT);
}

/* Needs more than a usual stack: 64 KiB, 512 with a sanitizer. */
static void job(void *arg)
{
    volatile char deep[1 << 20];
    deep[0] = *(char *)arg;
    assert_non_null(coro_start(note_arg, "c"));
    note(deep[0]);
    coro_job_pause();
    note('2');
    coro_job_pause();
    note('3');
}

static void a_job_runs_when_it_is_told_to(void **state)
{
    (void)state;
    struct coro *made = coro_job_create(job, "1");
    assert_non_null(made);
    assert_false(coro_any_ready());
    assert_false(coro_job_step(made));
    assert_null(coro_self());
    assert_string_equal(trace, "1");
    coro_run_ready(); /* what it has started, without it */
    assert_string_equal(trace, "1c");
    assert_false(coro_job_step(made));
    assert_int_equal(coro_count(), 1);
    assert_true(coro_job_step(made));
    assert_string_equal(trace, "1c23");
    assert_int_equal(coro_count(), 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(start_queues_and_main_runs_in_order),
        TEST(a_wake_queues_and_the_first_one_wins),
        TEST(a_coroutine_may_start_others),
        TEST(cancelling_ends_this_wait_and_all_later_ones),
        TEST(an_uncancellable_wait_goes_on),
        TEST(a_wake_before_the_cancel_wins),
        TEST(work_for_the_main_stack_runs_there_at_once),
        TEST(stacks_are_reused),
        TEST(many_wait_at_once),
        TEST(stacks_that_lie_unused_hold_no_memory),
        TEST(registers_survive_a_switch),
        TEST(a_stack_has_a_guard_below_it),
        TEST(a_job_runs_when_it_is_told_to),
        ON_BOTH(sleeps),
        ON_BOTH(a_sleep_can_be_cancelled),
        ON_BOTH(operations_end_in_time_or_are_taken_back),
        ON_BOTH(a_wake_is_awaited_until_a_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
