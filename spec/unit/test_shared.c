/* Shared dictionaries: what they say, what they evict, and what is left of them when processes die
 * in the middle of a change, at every instruction of it. */
#include "shared/dict.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    WRITERS = 4,
    KILLS = 150,
    STEPS_APART = 23, /* instructions between two places to die at */
    LIVES_MAX = 400,
    STRING_MAX = 900,
};

static struct shared_dict *open_new(uint64_t size, bool evicts)
{
    struct shared_spec spec = {.name = "test", .size = size, .evicts = evicts};
    int fd = shared_create(&spec);
    assert_true(fd >= 0);
    struct shared_spec found;
    assert_int_equal(shared_inspect(fd, &found), 0);
    assert_string_equal(found.name, "test");
    struct shared_dict *dict = shared_map(fd);
    assert_non_null(dict);
    close(fd);
    return dict;
}

static struct slice key_of(unsigned number)
{
    static char text[32];
    return slice_of(text, (size_t)snprintf(text, sizeof(text), "key %u", number));
}

static int put_number(struct shared_dict *dict, enum shared_how how, const char *key, double number,
                      int64_t ttl_ms)
{
    struct shared_value value = {.type = SHARED_NUMBER, .number = number};
    return shared_put(dict, how, slice_from_cstr(key), &value, ttl_ms);
}

/* A string all of whose bytes are the same, its length known by that byte. */
static int put_string(struct shared_dict *dict, struct slice key, unsigned char byte)
{
    char bytes[STRING_MAX];
    memset(bytes, byte, sizeof(bytes));
    struct shared_value value = {.type = SHARED_STRING, .bytes = {bytes, byte * 3U}};
    return shared_put(dict, SHARED_SET, key, &value, 0);
}

static bool is_whole(const struct shared_value *value)
{
    if (value->type != SHARED_STRING || !value->bytes.len)
        return false;
    unsigned char byte = (unsigned char)value->bytes.ptr[0];
    for (size_t i = 0; i < value->bytes.len; i++)
        if ((unsigned char)value->bytes.ptr[i] != byte)
            return false;
    return value->bytes.len == byte * 3U;
}

static double number_at(struct shared_dict *dict, const char *key)
{
    struct shared_value value;
    int result = shared_get(dict, slice_from_cstr(key), &value);
    return result == 1 && value.type == SHARED_NUMBER ? value.number : -1;
}

static struct shared_stats stats_of(struct shared_dict *dict)
{
    struct shared_stats stats;
    assert_int_equal(shared_stats(dict, &stats), 0);
    return stats;
}

static void wait_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* --- What they say ---------------------------------------------------------------------------- */

static void keeps_values_of_each_type(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(1 << 20, true);
    struct shared_value value;
    for (unsigned byte = 1; byte < 256; byte++)
        assert_int_equal(put_string(dict, key_of(byte), (unsigned char)byte), 1);
    for (unsigned byte = 1; byte < 256; byte++) {
        assert_int_equal(shared_get(dict, key_of(byte), &value), 1);
        assert_true(is_whole(&value) && value.bytes.len == byte * 3);
    }
    assert_int_equal(put_number(dict, SHARED_SET, "n", 0.1, 0), 1);
    assert_true(number_at(dict, "n") == 0.1);
    struct shared_value yes = {.type = SHARED_BOOLEAN, .number = 1};
    assert_int_equal(shared_put(dict, SHARED_SET, SLICE("n"), &yes, 0), 1);
    assert_int_equal(shared_get(dict, SLICE("n"), &value), 1);
    assert_true(value.type == SHARED_BOOLEAN && value.number == 1);
    struct shared_value none = {.type = SHARED_STRING, .bytes = SLICE("")};
    assert_int_equal(shared_put(dict, SHARED_SET, SLICE(""), &none, 0), 1);
    assert_int_equal(shared_get(dict, SLICE(""), &value), 1);
    assert_int_equal(value.bytes.len, 0);
    assert_int_equal(stats_of(dict).entries, 257);
    assert_int_equal(shared_delete(dict, SLICE("n")), 1);
    assert_int_equal(shared_delete(dict, SLICE("n")), 0);
    assert_int_equal(shared_get(dict, SLICE("n"), &value), 0);
    assert_int_equal(shared_flush(dict), 0);
    assert_int_equal(stats_of(dict).bytes_used, 0);
    shared_unmap(dict);
}

static void adds_replaces_and_counts(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(1 << 20, true);
    double sum;
    double init = 10;
    assert_int_equal(put_number(dict, SHARED_REPLACE, "a", 1, 0), 0);
    assert_int_equal(put_number(dict, SHARED_ADD, "a", 1, 0), 1);
    assert_int_equal(put_number(dict, SHARED_ADD, "a", 2, 0), 0);
    assert_int_equal(put_number(dict, SHARED_REPLACE, "a", 3, 0), 1);
    assert_true(number_at(dict, "a") == 3);
    assert_int_equal(shared_incr(dict, SLICE("b"), 1, NULL, 0, &sum), 0);
    assert_int_equal(shared_incr(dict, SLICE("b"), 1, &init, 0, &sum), 1);
    assert_true(sum == 11);
    assert_int_equal(shared_incr(dict, SLICE("b"), -2.5, &init, 0, &sum), 1);
    assert_true(sum == 8.5 && number_at(dict, "b") == 8.5);
    put_string(dict, SLICE("text"), 'x');
    assert_int_equal(shared_incr(dict, SLICE("text"), 1, &init, 0, &sum), -EINVAL);
    shared_unmap(dict);
}

static void forgets_what_is_over(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(1 << 20, true);
    int64_t left;
    put_number(dict, SHARED_SET, "short", 1, 20);
    put_number(dict, SHARED_SET, "unseen", 1, 20);
    put_number(dict, SHARED_SET, "long", 1, 60000);
    put_number(dict, SHARED_SET, "for good", 1, 0);
    assert_int_equal(shared_ttl(dict, SLICE("long"), &left), 1);
    assert_true(left > 0 && left <= 60000);
    assert_int_equal(shared_ttl(dict, SLICE("for good"), &left), 1);
    assert_int_equal(left, -1);
    assert_int_equal(shared_expire(dict, SLICE("for good"), 20), 1);
    assert_int_equal(shared_expire(dict, SLICE("long"), 0), 1);
    assert_int_equal(shared_expire(dict, SLICE("none"), 0), 0);
    wait_ms(40);
    assert_true(number_at(dict, "short") == -1);
    assert_true(number_at(dict, "for good") == -1);
    assert_true(number_at(dict, "long") == 1);
    assert_int_equal(put_number(dict, SHARED_ADD, "short", 2, 0), 1);
    assert_int_equal(shared_ttl(dict, SLICE("none"), &left), 0);
    struct shared_stats stats = stats_of(dict);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.expired, 3);
    shared_unmap(dict);
}

static void evicts_what_was_not_used_for_longest(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(64 << 10, true);
    struct shared_value value;
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(put_string(dict, key_of(i), (unsigned char)(1 + i % 255)), 1);
        assert_int_equal(shared_get(dict, key_of(0), &value), 1); /* in use all the time */
        assert_true(is_whole(&value));
    }
    assert_int_equal(shared_get(dict, key_of(1), &value), 0);
    assert_int_equal(shared_get(dict, key_of(4999), &value), 1);
    struct shared_stats stats = stats_of(dict);
    assert_int_equal(stats.entries + stats.evicted, 5000);
    assert_true(stats.bytes_used <= stats.bytes);
    shared_unmap(dict);
}

static void refuses_where_it_evicts_nothing(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(64 << 10, false);
    struct shared_value value;
    unsigned count = 0;
    put_number(dict, SHARED_SET, "over soon", 1, 1);
    while (put_string(dict, key_of(count), 200) == 1)
        count++;
    assert_true(count > 50);
    assert_int_equal(put_string(dict, key_of(count), 200), -ENOSPC);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(shared_get(dict, key_of(i), &value), 1);
    assert_int_equal(stats_of(dict).evicted, 0);
    assert_int_equal(shared_delete(dict, key_of(0)), 1);
    assert_int_equal(put_string(dict, key_of(count), 200), 1);
    shared_unmap(dict);
}

static void bounds_what_is_put_in(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(64 << 10, true);
    static char bytes[1 << 17];
    struct shared_value value = {.type = SHARED_STRING, .bytes = {bytes, 28000}};
    assert_int_equal(shared_put(dict, SHARED_SET, SLICE("k"), &value, 0), 1);
    assert_int_equal(shared_get(dict, SLICE("k"), &value), 1);
    assert_int_equal(value.bytes.len, 28000);
    value.bytes.len = 40000;
    value.bytes.ptr = bytes;
    assert_int_equal(shared_put(dict, SHARED_SET, SLICE("k"), &value, 0), -EMSGSIZE);
    value.bytes.len = 1;
    assert_int_equal(shared_put(dict, SHARED_SET, slice_of(bytes, SHARED_KEY_MAX + 1), &value, 0),
                     -EMSGSIZE);
    assert_int_equal(stats_of(dict).entries, 1);
    shared_unmap(dict);
}

static void knows_what_is_no_dictionary(void **state)
{
    (void)state;
    struct shared_spec spec;
    int fd = memfd_create("other", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(shared_inspect(fd, &spec), -EPROTO);
    assert_int_equal(ftruncate(fd, 65536), 0);
    assert_int_equal(shared_inspect(fd, &spec), -EPROTO);
    assert_int_equal(pwrite(fd, "mlshared\xff", 9, 0), 9);
    assert_int_equal(shared_inspect(fd, &spec), -EPROTONOSUPPORT);
    assert_null(shared_map(fd));
    close(fd);
}

/* --- What is left when processes die ---------------------------------------------------------- */

static void die(struct shard *shard)
{
    (void)shard;
    kill(getpid(), SIGKILL);
}

static void takes_a_lock_from_the_dead(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(64 << 10, true);
    put_string(dict, SLICE("k"), 'x');
    for (unsigned i = 1; i < 4; i++) {
        pid_t pid = fork();
        if (pid == 0)
            shared_with_lock(dict, SLICE("k"), die);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        struct shared_value value;
        assert_int_equal(shared_get(dict, SLICE("k"), &value), 1);
        assert_true(is_whole(&value));
        assert_int_equal(stats_of(dict).repaired, i);
    }
    shared_unmap(dict);
}

static int holding[2];

static void hold(struct shard *shard)
{
    (void)shard;
    char byte;
    assert_int_equal(write(holding[1], "h", 1), 1);
    while (read(holding[0], &byte, 0) == 0)
        pause();
}

static void does_not_wait_for_who_is_stopped(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(64 << 10, true);
    char byte;
    assert_int_equal(pipe(holding), 0);
    pid_t pid = fork();
    if (pid == 0)
        shared_with_lock(dict, SLICE("k"), hold);
    assert_int_equal(read(holding[0], &byte, 1), 1);
    assert_int_equal(put_number(dict, SHARED_SET, "k", 1, 0), -EBUSY);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(put_number(dict, SHARED_SET, "k", 1, 0), 1);
    close(holding[0]);
    close(holding[1]);
    shared_unmap(dict);
}

/* Everything that can be got is whole, and everything that is used can be got. */
static void check_whole(struct shared_dict *dict, unsigned keys)
{
    struct shared_value value;
    unsigned found = 0;
    for (unsigned i = 0; i < keys; i++) {
        int result = shared_get(dict, key_of(i), &value);
        assert_true(result >= 0);
        assert_true(!result || is_whole(&value));
        found += (unsigned)result;
    }
    assert_int_equal(stats_of(dict).entries, found);
    assert_int_equal(shared_flush(dict), 0);
    assert_int_equal(stats_of(dict).entries, 0);
    assert_int_equal(stats_of(dict).bytes_used, 0);
    for (unsigned i = 0; i < keys; i++) /* all of the memory can be used again */
        assert_int_equal(put_string(dict, key_of(i), 255), 1);
}

static volatile double *acknowledged; /* by each writer; shared */

static void write_for_ever(struct shared_dict *dict, unsigned writer, unsigned seed)
{
    srand(seed);
    for (;;) {
        double sum;
        double init = 0;
        unsigned number = (unsigned)rand() % 400;
        if (rand() % 8 == 0)
            shared_delete(dict, key_of(number));
        else
            put_string(dict, key_of(number), (unsigned char)(1 + rand() % 255));
        if (shared_incr(dict, SLICE("sum"), 1, &init, 0, &sum) == 1)
            acknowledged[writer] += 1;
    }
}

static void stays_whole_when_writers_are_killed(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(1 << 20, true); /* so that the sum is not evicted */
    pid_t pids[WRITERS];
    double init = 0;
    double sum = 0;
    double known = 0;
    acknowledged = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < WRITERS; i++)
        pids[i] = 0;
    srand(1);
    for (unsigned life = 0; life < KILLS; life++) {
        unsigned writer = life % WRITERS;
        if (pids[writer]) {
            kill(pids[writer], SIGKILL);
            assert_int_equal(waitpid(pids[writer], NULL, 0), pids[writer]);
        }
        pids[writer] = fork();
        if (pids[writer] == 0)
            write_for_ever(dict, writer, life);
        wait_ms(rand() % 4);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        kill(pids[i], SIGKILL);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        known += acknowledged[i];
    }
    assert_int_equal(shared_incr(dict, SLICE("sum"), 0, &init, 0, &sum), 1);
    assert_true(sum >= known && sum <= known + KILLS + WRITERS);
    assert_int_equal(shared_delete(dict, SLICE("sum")), 1);
    check_whole(dict, 400);
    munmap((void *)acknowledged, 4096);
    shared_unmap(dict);
}

/* One change, which replaces a value, evicts others and takes blocks of both kinds. */
static void change(struct shared_dict *dict)
{
    raise(SIGSTOP);
    put_string(dict, key_of(7), 250);
    _exit(0);
}

/* Has a child die so many instructions into the change. False: it was through before. */
static bool die_at(struct shared_dict *dict, unsigned long steps)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        change(dict);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status))
        skip(); /* where tracing is not allowed */
    for (unsigned long i = 0; i < steps && !WIFEXITED(status); i++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
    }
    if (WIFEXITED(status))
        return false;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status))
        continue;
    return true;
}

static void fill(struct shared_dict *dict)
{
    shared_flush(dict);
    for (unsigned i = 0; i < 120; i++)
        put_string(dict, key_of(i), (unsigned char)(100 + i));
    put_string(dict, key_of(7), 130);
}

static void stays_whole_wherever_its_writer_dies(void **state)
{
    (void)state;
    struct shared_dict *dict = open_new(64 << 10, true);
    unsigned lives = 0;
    bool seen[2] = {false, false};
    unsigned long apart = STEPS_APART;
    for (unsigned long steps = 1; lives < LIVES_MAX; steps += apart) {
        fill(dict);
        lives++;
        if (!die_at(dict, steps))
            break;
        struct shared_value value;
        assert_int_equal(shared_get(dict, key_of(7), &value), 1);
        assert_true(is_whole(&value));
        assert_true((unsigned char)value.bytes.ptr[0] == 130 ||
                    (unsigned char)value.bytes.ptr[0] == 250);
        seen[(unsigned char)value.bytes.ptr[0] == 250] = true;
        check_whole(dict, 120);
        apart = STEPS_APART + steps / 100; /* under sanitizers there are many more */
    }
    assert_true(seen[0] && seen[1]);
    assert_true(stats_of(dict).repaired > 5);
    shared_unmap(dict);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_values_of_each_type),
        cmocka_unit_test(adds_replaces_and_counts),
        cmocka_unit_test(forgets_what_is_over),
        cmocka_unit_test(evicts_what_was_not_used_for_longest),
        cmocka_unit_test(refuses_where_it_evicts_nothing),
        cmocka_unit_test(bounds_what_is_put_in),
        cmocka_unit_test(knows_what_is_no_dictionary),
        cmocka_unit_test(takes_a_lock_from_the_dead),
        cmocka_unit_test(does_not_wait_for_who_is_stopped),
        cmocka_unit_test(stays_whole_when_writers_are_killed),
        cmocka_unit_test(stays_whole_wherever_its_writer_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
