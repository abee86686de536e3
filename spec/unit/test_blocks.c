/* Memory for nghttp2: what is given is as large as asked for and keeps its bytes when it changes.
 */
#include "base/blocks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_blocks_of_all_sizes(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        char *blocks[1024];
        for (size_t size = 0; size < 1024; size++) {
            blocks[size] = blocks_take(size);
            assert_non_null(blocks[size]);
            assert_int_equal((uintptr_t)blocks[size] % _Alignof(max_align_t), 0);
            memset(blocks[size], (int)(size % 251), size);
        }
        for (size_t size = 0; size < 1024; size++) {
            for (size_t i = 0; i < size; i++)
                assert_int_equal((unsigned char)blocks[size][i], size % 251);
            blocks_give(blocks[size]);
        }
    }
    blocks_give(NULL);
}

static void test_more_than_is_kept(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static void *blocks[COUNT];
    for (unsigned i = 0; i < COUNT; i++)
        blocks[i] = blocks_take(200);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_non_null(blocks[i]);
        blocks_give(blocks[i]);
    }
}

static void test_records(void **state)
{
    (void)state;
    for (size_t size = 16000; size < 19000; size += 50) {
        char *first = blocks_take(size);
        char *second = blocks_take(size);
        memset(first, 1, size);
        memset(second, 2, size);
        assert_int_equal(first[size - 1], 1);
        blocks_give(first);
        blocks_give(second);
    }
}

static void test_growing_and_shrinking(void **state)
{
    (void)state;
    char *bytes = blocks_change(NULL, 1);
    bytes[0] = 'a';
    for (size_t size = 2; size < 3000; size++) {
        bytes = blocks_change(bytes, size);
        assert_non_null(bytes);
        bytes[size - 1] = (char)('a' + (size - 1) % 26);
    }
    bytes = blocks_change(bytes, 100);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(bytes[i], 'a' + i % 26);
    blocks_give(bytes);
}

static void test_unused_ones_are_freed(void **state)
{
    (void)state;
    enum { COUNT = 10 };
    static const size_t sizes[] = {100, 4096, 17000};
    void *blocks[COUNT];
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (unsigned j = 0; j < COUNT; j++)
            blocks[j] = blocks_take(sizes[i]);
        for (unsigned j = 0; j < COUNT; j++)
            blocks_give(blocks[j]);
        blocks_trim();
        while (blocks_trim())
            ;
        blocks_give(blocks_take(sizes[i]));
        assert_false(blocks_trim()); /* it was in use */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_of_all_sizes),
        cmocka_unit_test(test_more_than_is_kept),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_growing_and_shrinking),
        cmocka_unit_test(test_unused_ones_are_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
