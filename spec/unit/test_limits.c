/* Counts that workers share: sums, bounds, clearing after a crash, rates. */
#include "net/limits.h"

#include "base/siphash.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS = 4 };

static struct limits all;

static struct limits as(unsigned worker)
{
    return (struct limits){all.shared, worker};
}

static int setup(void **state)
{
    (void)state;
    return limits_open(&all, WORKERS, 10000);
}

static int teardown(void **state)
{
    (void)state;
    limits_close(&all);
    return 0;
}

static struct address address_of(const char *text)
{
    struct address address;
    const char *why;
    assert_int_equal(address_parse(slice_from_cstr(text), &address, &why), 0);
    return address;
}

static uint64_t source_of(const char *text)
{
    struct address address = address_of(text);
    return limits_source(&all, 0, &address, 32, 64);
}

static void hashes_as_the_paper_does(void **state)
{
    (void)state;
    uint8_t bytes[SIPHASH_KEY_BYTES];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    assert_true(siphash(bytes, bytes, 15) == 0xa129ca6149be45e5ULL);
    assert_true(siphash(bytes, bytes, 0) == 0x726fdb47dd0e0e31ULL);
    assert_true(siphash(bytes, bytes, 8) == 0x93f5f5799a932462ULL);
}

static void gives_each_name_one_place(void **state)
{
    (void)state;
    int a = limits_listener(&all, "127.0.0.1:80");
    int b = limits_listener(&all, "[::1]:80");
    assert_true(a >= 0 && b >= 0 && a != b);
    struct limits other = as(1);
    assert_int_equal(limits_listener(&other, "127.0.0.1:80"), a);
    char name[32];
    unsigned refused = 0;
    for (unsigned i = 0; i < LIMITS_LISTENERS_MAX; i++) {
        snprintf(name, sizeof(name), "127.0.0.1:%u", 1000 + i);
        refused += limits_listener(&all, name) == LIMITS_NONE;
    }
    assert_int_equal(refused, 2);
    assert_int_equal(limits_listener(&all, "[::1]:80"), b);
}

static void sums_connections_of_all_workers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) {
        struct limits own = as(i);
        limits_add_connections(&own, 7, 10);
        limits_add_connections(&own, 7, -1);
    }
    assert_int_equal(limits_connections(&all, 7), 9 * WORKERS);
    assert_int_equal(limits_connections(&all, 8), 0);
    limits_clear(&all, 2);
    assert_int_equal(limits_connections(&all, 7), 9 * (WORKERS - 1));
    assert_int_equal(limits_connections(&all, LIMITS_NONE), 0);
}

static void bounds_a_source_over_all_workers(void **state)
{
    (void)state;
    uint64_t source = source_of("192.0.2.1:1");
    struct limits first = as(0);
    struct limits second = as(1);
    assert_true(limits_take_source(&first, source, 3));
    assert_true(limits_take_source(&second, source, 3));
    assert_true(limits_take_source(&second, source, 3));
    assert_false(limits_take_source(&first, source, 3));
    assert_false(limits_take_source(&second, source, 3));
    assert_true(limits_take_source(&first, source_of("192.0.2.2:1"), 3));
    limits_give_source(&second, source);
    assert_true(limits_take_source(&first, source, 3));
    assert_false(limits_take_source(&first, source, 3));
    limits_clear(&all, 0);
    assert_true(limits_take_source(&second, source, 3));
    assert_true(limits_take_source(&second, source, 3));
    assert_false(limits_take_source(&second, source, 3));
}

static void forgets_what_a_killed_worker_held(void **state)
{
    (void)state;
    uint64_t source = source_of("192.0.2.1:1");
    pid_t pid = fork();
    if (pid == 0) {
        struct limits own = as(3);
        int taken = 0;
        while (taken < 3 && limits_take_source(&own, source, 2))
            taken++;
        _exit(taken); /* as abruptly as by a signal */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 2);
    assert_false(limits_take_source(&all, source, 2));
    limits_clear(&all, 3);
    assert_true(limits_take_source(&all, source, 2));
}

static void counts_networks_of_ipv6_as_one(void **state)
{
    (void)state;
    assert_true(source_of("[2001:db8::1]:1") == source_of("[2001:db8::ffff:1]:2"));
    assert_true(source_of("[2001:db8::1]:1") != source_of("[2001:db8:0:1::1]:1"));
    assert_true(source_of("192.0.2.1:1") == source_of("[::ffff:192.0.2.1]:1"));
    assert_true(source_of("192.0.2.1:1") != source_of("192.0.2.2:1"));
    struct address a = address_of("192.0.2.1:1");
    struct address b = address_of("192.0.2.14:1");
    struct address c = address_of("192.0.2.17:1");
    assert_true(limits_source(&all, 0, &a, 28, 64) == limits_source(&all, 0, &b, 28, 64));
    assert_true(limits_source(&all, 0, &a, 28, 64) != limits_source(&all, 0, &c, 28, 64));
    assert_true(limits_source(&all, 1, &a, 28, 64) != limits_source(&all, 0, &a, 28, 64));
    assert_true(limits_source(&all, LIMITS_NONE, &a, 32, 64) == 0);
    assert_true(source_of("unix:/run/x") == 0);
}

/* As many sources as a worker may have connections: all are counted, and none for another. */
static void has_room_for_as_many_sources_as_connections(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 10000; i++) {
            struct address address = {.v4.sin_family = AF_INET, .len = sizeof(struct sockaddr_in)};
            address.v4.sin_addr.s_addr = i;
            uint64_t source = limits_source(&all, 0, &address, 32, 64);
            assert_true(limits_take_source(&all, source, 1));
            assert_false(limits_take_source(&all, source, 1));
        }
        for (uint32_t i = 0; i < 10000; i++) {
            struct address address = {.v4.sin_family = AF_INET, .len = sizeof(struct sockaddr_in)};
            address.v4.sin_addr.s_addr = i;
            limits_give_source(&all, limits_source(&all, 0, &address, 32, 64));
        }
    }
}

static void lets_a_burst_and_then_the_rate(void **state)
{
    (void)state;
    struct limits other = as(1);
    assert_int_equal(limits_rate_left(&all, 5, 10, 4), 4);
    for (unsigned i = 0; i < 4; i++)
        limits_rate_take(i % 2 ? &all : &other, 5, 10, 4);
    assert_int_equal(limits_rate_left(&all, 5, 10, 4), 0);
    nanosleep(&(struct timespec){.tv_nsec = 110000000}, NULL);
    assert_in_range(limits_rate_left(&all, 5, 10, 4), 1, 4); /* a slow machine sleeps longer */
    for (unsigned i = 0; i < 100; i++)
        limits_rate_take(&all, 5, 1, 1000); /* far ahead */
    assert_in_range(limits_rate_left(&all, 5, 1000000000, 10), 0, 10);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    limits_rate_take(&all, 5, 1000, 1); /* another rate now: the past does not hold it up */
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    assert_int_equal(limits_rate_left(&all, 5, 1000, 1), 1);
    assert_int_equal(limits_rate_left(&all, LIMITS_NONE, 10, 4), UINT32_MAX);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_as_the_paper_does),
        TEST(gives_each_name_one_place),
        TEST(sums_connections_of_all_workers),
        TEST(bounds_a_source_over_all_workers),
        TEST(forgets_what_a_killed_worker_held),
        TEST(counts_networks_of_ipv6_as_one),
        TEST(has_room_for_as_many_sources_as_connections),
        TEST(lets_a_burst_and_then_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
