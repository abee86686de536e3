/* What another process has had of the CPUs. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/cpu_time.h"

static pid_t start(void (*run)(void))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        run();
        _exit(0);
    }
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void compute(void)
{
    for (volatile unsigned i = 0;; i++)
        ;
}

static void sleep_on(void)
{
    for (;;)
        pause();
}

static void one_that_computes_wants_and_uses_a_cpu(void **state)
{
    (void)state;
    pid_t pid = start(compute);
    while (cpu_time_ms(pid) < 20)
        usleep(1000);
    assert_true(cpu_time_wanted(pid));
    end(pid);
}

static void one_that_sleeps_does_neither(void **state)
{
    (void)state;
    pid_t pid = start(sleep_on);
    while (cpu_time_wanted(pid)) /* it is just being started */
        usleep(1000);
    int64_t before = cpu_time_ms(pid);
    assert_true(before >= 0);
    usleep(50000);
    assert_true(cpu_time_ms(pid) - before < 25);
    end(pid);
}

static void one_that_is_gone_is_told_of(void **state)
{
    (void)state;
    pid_t pid = start(sleep_on);
    end(pid);
    assert_int_equal(cpu_time_ms(pid), -ESRCH);
    assert_false(cpu_time_wanted(pid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_computes_wants_and_uses_a_cpu),
        cmocka_unit_test(one_that_sleeps_does_neither),
        cmocka_unit_test(one_that_is_gone_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
