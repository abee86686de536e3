/* Log lines of handlers, and the time in them. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/output.h"
#include "base/utc.h"

enum { WRITING_MS = 300, PATIENCE_MS = 10000 };

static void write_too(int number)
{
    (void)number;
    log_error("from a handler");
}

/* Writes while a handler does, which may interrupt it anywhere. */
static _Noreturn void write_on(void)
{
    const struct itimerval often = {.it_interval.tv_usec = 20, .it_value.tv_usec = 20};
    const struct sigaction action = {.sa_handler = write_too};
    int64_t until_ms = clock_now_ms() + WRITING_MS;
    output_error = output_of(open("/dev/null", O_WRONLY | O_CLOEXEC));
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    while (clock_now_ms() < until_ms)
        log_error("from the program");
    _exit(0);
}

/* Has it ended by itself? */
static bool ends(pid_t pid)
{
    int status;
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;
    while (waitpid(pid, &status, WNOHANG) == 0 && clock_now_ms() < until_ms)
        poll(NULL, 0, 10);
    kill(pid, SIGKILL);
    return waitpid(pid, &status, 0) < 0;
}

/* Last words are written by a handler. */
static void is_written_to_by_handlers(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        write_on();
    assert_true(ends(pid));
}

/* Every day from 1970 to 2400, at another second each. */
static void has_the_date_of_the_library(void **state)
{
    (void)state;
    for (time_t day = 0; day < (time_t)430 * 366; day++) {
        time_t time = day * 86400 + day * 7919 % 86400;
        struct tm own;
        struct tm library;
        utc_from_time(time, &own);
        gmtime_r(&time, &library);
        assert_int_equal(own.tm_year, library.tm_year);
        assert_int_equal(own.tm_mon, library.tm_mon);
        assert_int_equal(own.tm_mday, library.tm_mday);
        assert_int_equal(own.tm_hour, library.tm_hour);
        assert_int_equal(own.tm_min, library.tm_min);
        assert_int_equal(own.tm_sec, library.tm_sec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_written_to_by_handlers),
        cmocka_unit_test(has_the_date_of_the_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
