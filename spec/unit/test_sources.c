/* The files of a site, written by a probe and read by workers. */
#include "server/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct script_source files[] = {
    {"site.lua", "return 1", 8, false},
    {"a.key", "secret\0text", 11, true},
    {"empty", "", 0, false},
};

enum { COUNT = sizeof(files) / sizeof(files[0]) };

static int make(void)
{
    int fd = sources_create();
    assert_true(fd >= 0);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(0, sources_add(fd, &files[i]));
    return fd;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    struct sources sources;
    int fd = make();
    assert_int_equal(0, sources_seal(fd));
    assert_int_equal(0, sources_open(&sources, fd));
    assert_int_equal(COUNT, sources.count);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_string_equal(files[i].path, sources.files[i].path);
        assert_int_equal(files[i].len, sources.files[i].len);
        assert_memory_equal(files[i].text, sources.files[i].text, files[i].len);
        assert_int_equal(files[i].secret, sources.files[i].secret);
    }
    sources_close(&sources);
}

static void what_is_sealed_stays_as_it_is(void **state)
{
    (void)state;
    int fd = make();
    assert_int_equal(0, sources_seal(fd));
    assert_int_equal(-EPERM, sources_add(fd, &files[0]));
    assert_int_equal(-1, ftruncate(fd, 0));
    close(fd);
}

/* Cut at every byte, it holds the files that are whole or is refused. */
static void what_is_cut_is_refused(void **state)
{
    (void)state;
    struct stat status;
    int fd = make();
    assert_int_equal(0, fstat(fd, &status));
    unsigned whole = 0;
    for (off_t size = status.st_size - 1; size > 0; size--) {
        struct sources sources;
        assert_int_equal(0, ftruncate(fd, size));
        int result = sources_open(&sources, dup(fd));
        if (result == 0) {
            whole++;
            assert_true(sources.count < COUNT);
            sources_close(&sources);
        } else
            assert_int_equal(-EBADMSG, result);
    }
    assert_int_equal(COUNT - 1, whole);
    close(fd);
}

/* Lengths that lead out of the memory. */
static void wrong_lengths_are_refused(void **state)
{
    (void)state;
    static const uint64_t wrong[] = {0, 1, 1000, UINT64_MAX, UINT64_MAX - 8, (uint64_t)1 << 63};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        for (off_t at = 0; at < 16; at += 8) {
            struct sources sources;
            int fd = sources_create();
            assert_int_equal(0, sources_add(fd, &files[0]));
            assert_int_equal(8, pwrite(fd, &wrong[i], 8, at));
            assert_int_equal(-EBADMSG, sources_open(&sources, fd));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(what_is_sealed_stays_as_it_is),
        cmocka_unit_test(what_is_cut_is_refused),
        cmocka_unit_test(wrong_lengths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
