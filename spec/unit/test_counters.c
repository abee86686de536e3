/* Counters of the program: sums over processes, what is kept of the dead, names of upstreams. */
#include "base/counters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS = 4, EACH = 100000 };

static void in_worker(unsigned worker, void (*work)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        counters_be_worker(worker);
        work();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void accept_many(void)
{
    for (unsigned i = 0; i < EACH; i++) {
        counters_add(COUNTER_CONNECTIONS_ACCEPTED, 1);
        counters_add(COUNTER_CONNECTIONS_OPEN, 1);
    }
}

static void accept_and_close(void)
{
    accept_many();
    counters_add(COUNTER_CONNECTIONS_OPEN, -EACH + 1);
}

static void leave(void)
{
    counters_leave();
    accept_many();
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_ACCEPTED), EACH);
}

static void counts_alone_before_it_is_open(void **state)
{
    (void)state;
    counters_add(COUNTER_RELOADS_DONE, 2);
    assert_int_equal(counters_sum(COUNTER_RELOADS_DONE), 2);
    unsigned api = counters_upstream("api");
    counters_add_upstream(api, UPSTREAM_CONNECTS, 3);
    assert_int_equal(counters_sum_upstream(api, UPSTREAM_CONNECTS), 3);
    assert_string_equal(counters_upstream_name(api), "api");
}

static void sums_what_all_have_counted(void **state)
{
    (void)state;
    assert_int_equal(counters_open(WORKERS), 0);
    counters_add(COUNTER_CONNECTIONS_ACCEPTED, 1); /* the supervisor's */
    pid_t pids[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            counters_be_worker(i);
            accept_many();
            _exit(0);
        }
    }
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_ACCEPTED), WORKERS * EACH + 1);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_OPEN), WORKERS * EACH);
}

static void keeps_what_the_dead_have_counted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++)
        counters_worker_ended(i);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_OPEN), 0);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_ACCEPTED), WORKERS * EACH + 1);
    in_worker(2, accept_and_close);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_OPEN), 1);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_ACCEPTED), (WORKERS + 1) * EACH + 1);
}

static void leaves_no_trace_of_who_has_left(void **state)
{
    (void)state;
    in_worker(0, leave);
    assert_int_equal(counters_sum(COUNTER_CONNECTIONS_ACCEPTED), (WORKERS + 1) * EACH + 1);
}

static unsigned expected_place;

static void connect_to_api(void)
{
    if (counters_upstream("api") != expected_place)
        abort();
    counters_add_upstream(expected_place, UPSTREAM_CONNECTS, 5);
}

static void gives_each_upstream_one_place(void **state)
{
    (void)state;
    expected_place = counters_upstream("api");
    in_worker(0, connect_to_api);
    in_worker(1, connect_to_api);
    assert_int_equal(counters_sum_upstream(expected_place, UPSTREAM_CONNECTS), 10);
    assert_int_not_equal(expected_place, counters_upstream("db"));
    char name[32];
    unsigned others = 0;
    for (unsigned i = 0; i < COUNTERS_UPSTREAMS_MAX; i++) {
        snprintf(name, sizeof(name), "upstream %u", i);
        others += counters_upstream(name) == COUNTERS_UPSTREAM_OTHERS;
    }
    assert_int_equal(others, 3); /* of 1023 places two were taken */
    assert_string_equal(counters_upstream_name(COUNTERS_UPSTREAM_OTHERS), "(others)");
    assert_int_equal(counters_upstream("api"), expected_place);
}

static void explains_every_counter(void **state)
{
    (void)state;
    for (unsigned i = 0; i < COUNTER_COUNT; i++) {
        const struct counter_info *info = &counter_infos[i];
        bool first = !i || strcmp(info->name, info[-1].name) != 0;
        assert_true(info->name[0]);
        assert_int_equal(info->help[0] != '\0', first); /* those of a name stand together */
        assert_int_equal(info->label[0] != '\0', info->value[0] != '\0');
        assert_true(first || info->gauge == info[-1].gauge);
        for (unsigned j = 0; j + 1 < i && first; j++)
            assert_string_not_equal(counter_infos[j].name, info->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_alone_before_it_is_open),
        cmocka_unit_test(sums_what_all_have_counted),
        cmocka_unit_test(keeps_what_the_dead_have_counted),
        cmocka_unit_test(leaves_no_trace_of_who_has_left),
        cmocka_unit_test(gives_each_upstream_one_place),
        cmocka_unit_test(explains_every_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
