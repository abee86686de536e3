/* Work in slices: in order, bounded, to the end at once when that is wanted. */
#include "support/loop.h"

#include <errno.h>
#include <string.h>

#include "server/background.h"

static struct background background;
static char trace[32]; /* the letters of jobs, as they come to their ends */
static unsigned steps;

struct work {
    struct background_job job;
    char letter;
    int64_t us; /* that it takes */
};

/* Looks at the clock only, as often as work does. */
static void work(struct background_job *job)
{
    const struct work *self = (struct work *)job;
    int64_t until_us = clock_now_us() + self->us;
    while (clock_now_us() < until_us) {
        errno = ENOENT;
        background_pause(&background);
        assert_int_equal(errno, ENOENT);
    }
    trace[strlen(trace)] = self->letter;
}

static void add(struct work *self)
{
    self->job.fn = work;
    background_add(&background, &self->job);
}

static int setup(void **state)
{
    (void)state;
    background_init(&background);
    memset(trace, 0, sizeof(trace));
    steps = 0;
    return 0;
}

static void step(void)
{
    background_step(&background);
    steps++;
}

static void jobs_are_done_in_their_order_and_in_parts(void **state)
{
    (void)state;
    struct work first = {.letter = 'a', .us = 50000}, second = {.letter = 'b'};
    add(&first);
    add(&second);
    step();
    assert_string_equal(trace, "");
    background_pause(&background); /* is not in a job */
    while (!trace[0])
        step();
    assert_true(steps >= 5); /* many more, if the machine is not busy */
    assert_string_equal(trace, "a");
    step();
    assert_string_equal(trace, "ab");
    assert_false(background_busy(&background));
    step(); /* nothing to do */
}

static void all_is_done_at_once_when_that_is_wanted(void **state)
{
    (void)state;
    struct work first = {.letter = 'a', .us = 20000}, second = {.letter = 'b', .us = 20000};
    add(&first);
    add(&second);
    step();
    background_finish(&background);
    assert_string_equal(trace, "ab");
    assert_false(background_busy(&background));
    background_finish(&background);
}

/* As one that finds the last user of a site gone. */
static void add_another(struct background_job *job)
{
    static struct work other = {.letter = 'o'};
    (void)job;
    add(&other);
    trace[strlen(trace)] = 'j';
}

static void a_job_may_add_another(void **state)
{
    (void)state;
    struct background_job job = {.fn = add_another};
    background_add(&background, &job);
    background_finish(&background);
    assert_string_equal(trace, "jo");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(jobs_are_done_in_their_order_and_in_parts, setup),
        cmocka_unit_test_setup(all_is_done_at_once_when_that_is_wanted, setup),
        cmocka_unit_test_setup(a_job_may_add_another, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
