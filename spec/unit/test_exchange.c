/* The pool of exchanges: what a stale handle sees, and memory that is given back. */
#include "http/exchange.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { COUNT = 1000 };

static struct exchange *exchanges[COUNT];
static uint32_t generations[COUNT];

static void begin_all(void)
{
    for (unsigned i = 0; i < COUNT; i++) {
        exchanges[i] = exchange_begin(NULL);
        assert_non_null(exchanges[i]);
        generations[i] = exchanges[i]->request.generation;
        assert_int_not_equal(generations[i], 0);
    }
    assert_int_equal(exchange_active_count(), COUNT);
}

static void end_all(void)
{
    for (unsigned i = 0; i < COUNT; i++)
        exchange_end(exchanges[i]);
    assert_int_equal(exchange_active_count(), 0);
}

static void expect_all_over(void)
{
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_not_equal(exchanges[i]->request.generation, generations[i]);
}

static void a_request_that_is_over_is_known_as_such(void **state)
{
    (void)state;
    begin_all();
    end_all();
    expect_all_over();
    exchange_trim(); /* they were used since the last time */
    while (exchange_trim())
        expect_all_over();
    uint32_t last = generations[COUNT - 1];
    begin_all();
    for (unsigned i = 0; i < COUNT; i++)
        assert_true(generations[i] > last);
    end_all();
}

static void none_of_those_in_use_is_given_back(void **state)
{
    (void)state;
    begin_all();
    for (unsigned i = 1; i < COUNT; i++)
        exchange_end(exchanges[i]);
    exchange_trim();
    while (exchange_trim())
        continue;
    assert_int_equal(exchanges[0]->request.generation, generations[0]);
    exchange_end(exchanges[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_is_over_is_known_as_such),
        cmocka_unit_test(none_of_those_in_use_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
