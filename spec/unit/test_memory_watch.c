/* When a site whose Lua holds too much is loaded anew, and when that is given up. */
#include "server/memory_watch.h"

#include "script/script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const uint64_t MEBIBYTE = 1 << 20;

static struct memory_watch watch;
static struct script_memory_use use;
static bool over;
static unsigned collections;

/* In place of those of src/script. */
bool script_memory_over(const struct site *site)
{
    (void)site;
    return over;
}

struct script_memory_use script_memory_collect(struct site *site)
{
    (void)site;
    collections++;
    return use;
}

static int setup(void **state)
{
    (void)state;
    watch = (struct memory_watch){0};
    use = (struct script_memory_use){95 * MEBIBYTE, 100 * MEBIBYTE, 95 * MEBIBYTE};
    over = true;
    collections = 0;
    return 0;
}

static enum memory_verdict judge(int64_t now_ms)
{
    return memory_watch_judge(&watch, NULL, now_ms);
}

static void what_was_garbage_is_fine(void **state)
{
    (void)state;
    over = false;
    assert_int_equal(judge(1000000), MEMORY_FINE);
    over = true;
    assert_int_equal(judge(1000001), MEMORY_RESTART);
}

static void restarts_get_rarer_until_the_worker_ends(void **state)
{
    (void)state;
    int64_t now = 1000000;
    for (int64_t delay = 1000; delay <= 16000; delay *= 2) {
        assert_int_equal(judge(now), MEMORY_RESTART);
        unsigned before = collections;
        assert_int_equal(judge(now + delay - 1), MEMORY_FINE);
        assert_int_equal(collections, before);
        now += delay;
    }
    assert_int_equal(judge(now), MEMORY_END);
}

static void who_lived_long_begins_anew(void **state)
{
    (void)state;
    for (int64_t now = 1000000; now < 2000000; now += 60000)
        assert_int_equal(judge(now), MEMORY_RESTART);
}

static void old_generations_may_hold_as_much_again(void **state)
{
    (void)state;
    use.all = 195 * MEBIBYTE;
    assert_int_equal(judge(1000000), MEMORY_RESTART);
    use.all = 196 * MEBIBYTE;
    assert_int_equal(judge(2000000), MEMORY_END);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_was_garbage_is_fine, setup),
        cmocka_unit_test_setup(restarts_get_rarer_until_the_worker_ends, setup),
        cmocka_unit_test_setup(who_lived_long_begins_anew, setup),
        cmocka_unit_test_setup(old_generations_may_hold_as_much_again, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
