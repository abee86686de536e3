/* The log's bounds: what may come in thousands is written a few times and counted. */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* How many lines standard error gets from a thousand warnings. */
static unsigned count_lines(void)
{
    char line[512];
    unsigned count = 0;
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    assert_non_null(file);
    dup2(fileno(file), STDERR_FILENO);
    for (int i = 0; i < 1000; i++)
        log_no_memory("no memory for a spec: it is not run");
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    while (fgets(line, sizeof(line), file)) {
        assert_non_null(strstr(line, " warn [main] no memory for a spec: it is not run ("));
        count++;
    }
    fclose(file);
    return count;
}

static void writes_a_few_of_many_warnings(void **state)
{
    (void)state;
    unsigned count = count_lines();
    assert_in_range(count, 1, 10); /* a second may end in between */
}

static void passes_what_its_burst_allows_and_counts_the_rest(void **state)
{
    struct log_limit limit = {0};
    uint32_t suppressed = 1;
    unsigned passed = 0;
    (void)state;
    for (int i = 0; i < 100; i++)
        passed += log_limit_pass(&limit, 3, &suppressed);
    assert_in_range(passed, 3, 6);
    limit.window_start_ms -= 1000;
    uint32_t missing = limit.suppressed;
    assert_true(log_limit_pass(&limit, 3, &suppressed));
    assert_int_equal(suppressed, missing);
    assert_int_equal(limit.suppressed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_a_few_of_many_warnings),
        cmocka_unit_test(passes_what_its_burst_allows_and_counts_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
