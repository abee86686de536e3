/* Counters of the program: sums over processes, what is kept of the dead, names of upstreams, what
 * a program takes over. */
#include "base/counters_internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static void reload_once(void)
{
    counters_add(COUNTER_RELOADS_DONE, 1);
    counters_add(COUNTER_TUNNELS_OPEN, 1);
    counters_add_upstream(counters_upstream("api"), UPSTREAM_CONNECTS, 1);
}

/* A program that takes over from this one. Returns what the next one is left. */
static unsigned take_over(int *fds, unsigned count)
{
    assert_int_equal(counters_open(WORKERS), 0);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(counters_inherit(fds[i]), 0);
    return counters_leave_behind(fds, WORKERS);
}

static struct segment *memory_of(int fd)
{
    struct segment *segment =
        mmap(NULL, sizeof(*segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(segment, MAP_FAILED);
    return segment;
}

static void goes_on_with_what_others_have_counted(void **state)
{
    (void)state;
    int fds[WORKERS];
    counters_forget_before();
    unsigned left = take_over(fds, 0);
    assert_int_equal(left, 1);
    counters_upstream("db"); /* so that places differ */
    reload_once();
    in_worker(1, reload_once);
    struct counters_part *old = counters_own;

    left = take_over(fds, left);
    assert_int_equal(left, 2);
    assert_int_equal(counters_sum(COUNTER_RELOADS_DONE), 2);
    reload_once();
    counters_own = old; /* it counts on while it drains */
    counters_add(COUNTER_RELOADS_DONE, 1);
    counters_add(COUNTER_TUNNELS_OPEN, -1);
    unsigned api = counters_upstream("api");
    assert_int_equal(counters_sum(COUNTER_RELOADS_DONE), 4);
    assert_int_equal(counters_sum(COUNTER_TUNNELS_OPEN), 2);
    assert_int_equal(counters_sum_upstream(api, UPSTREAM_CONNECTS), 3);
}

static void keeps_the_sums_of_programs_that_have_ended(void **state)
{
    (void)state;
    int fds[WORKERS];
    unsigned left = counters_leave_behind(fds, WORKERS);
    assert_int_equal(left, 2);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    memory_of(fds[1])->pid = pid;
    assert_int_equal(counters_sum(COUNTER_TUNNELS_OPEN), 1); /* those of the living only */
    counters_forget_before();
    left = take_over(fds, left);
    assert_int_equal(left, 2); /* its own, and of one that lives */
    assert_int_equal(counters_sum(COUNTER_RELOADS_DONE), 4);
    assert_int_equal(counters_sum(COUNTER_TUNNELS_OPEN), 1);
    assert_int_equal(counters_sum_upstream(counters_upstream("api"), UPSTREAM_CONNECTS), 3);
}

static void takes_what_it_knows_from_another_version(void **state)
{
    (void)state;
    int fds[WORKERS];
    counters_forget_before();
    take_over(fds, 0);
    reload_once();
    counters_add(COUNTER_LAYER_FAILURES, 5);
    struct segment *old = memory_of(fds[0]);
    /* Two counters have changed places. */
    char label[COUNTERS_LABEL_MAX];
    memcpy(label, old->names[COUNTER_RELOADS_DONE], sizeof(label));
    memcpy(old->names[COUNTER_RELOADS_DONE], old->names[COUNTER_LAYER_FAILURES], sizeof(label));
    memcpy(old->names[COUNTER_LAYER_FAILURES], label, sizeof(label));
    snprintf(old->names[COUNTER_TUNNELS_OPEN], sizeof(label), "not known");
    take_over(fds, 1);
    assert_int_equal(counters_sum(COUNTER_RELOADS_DONE), 5);
    assert_int_equal(counters_sum(COUNTER_LAYER_FAILURES), 1);
    assert_int_equal(counters_sum(COUNTER_TUNNELS_OPEN), 0);
}

static void takes_nothing_that_makes_no_sense(void **state)
{
    (void)state;
    int fds[WORKERS];
    counters_forget_before();
    take_over(fds, 0);
    struct segment *old = memory_of(fds[0]);
    struct segment good = *old;
    assert_int_equal(counters_open(WORKERS), 0);
    old->layout++;
    assert_int_equal(counters_inherit(fds[0]), -EPROTONOSUPPORT);
    *old = good;
    old->part_count = 1000;
    assert_int_equal(counters_inherit(fds[0]), -EPROTONOSUPPORT);
    *old = good;
    old->upstreams_at = 1 << 30;
    assert_int_equal(counters_inherit(fds[0]), -EPROTONOSUPPORT);
    *old = good;
    old->counter_count = 4000;
    assert_int_equal(counters_inherit(fds[0]), -EPROTONOSUPPORT);
    *old = good;
    old->magic[0] = 'M';
    assert_int_equal(counters_inherit(fds[0]), -EPROTO);
    int empty = memfd_create("empty", MFD_CLOEXEC);
    assert_int_equal(counters_inherit(empty), -EPROTO);
    close(empty);
    close(fds[0]);
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
        cmocka_unit_test(goes_on_with_what_others_have_counted),
        cmocka_unit_test(keeps_the_sums_of_programs_that_have_ended),
        cmocka_unit_test(takes_what_it_knows_from_another_version),
        cmocka_unit_test(takes_nothing_that_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
