/* Memory for nghttp2: what is given is as large as asked for and keeps its bytes when it changes.
 */
#include "http/h2_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_blocks_of_all_sizes(void **state)
{
    (void)state;
    const nghttp2_mem *memory = h2_memory();
    for (unsigned round = 0; round < 2; round++) {
        char *blocks[1024];
        for (size_t size = 0; size < 1024; size++) {
            blocks[size] = memory->malloc(size, NULL);
            assert_non_null(blocks[size]);
            assert_int_equal((uintptr_t)blocks[size] % _Alignof(max_align_t), 0);
            memset(blocks[size], (int)(size % 251), size);
        }
        for (size_t size = 0; size < 1024; size++) {
            for (size_t i = 0; i < size; i++)
                assert_int_equal((unsigned char)blocks[size][i], size % 251);
            memory->free(blocks[size], NULL);
        }
    }
    memory->free(NULL, NULL);
}

static void test_more_than_is_kept(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static void *blocks[COUNT];
    const nghttp2_mem *memory = h2_memory();
    for (unsigned i = 0; i < COUNT; i++)
        blocks[i] = memory->malloc(200, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_non_null(blocks[i]);
        memory->free(blocks[i], NULL);
    }
}

static void test_zeroed(void **state)
{
    (void)state;
    const nghttp2_mem *memory = h2_memory();
    char *dirty = memory->malloc(96, NULL);
    memset(dirty, 1, 96);
    memory->free(dirty, NULL);
    char *clean = memory->calloc(12, 8, NULL);
    for (unsigned i = 0; i < 96; i++)
        assert_int_equal(clean[i], 0);
    memory->free(clean, NULL);
    assert_null(memory->calloc(SIZE_MAX / 2, 3, NULL));
    assert_null(memory->malloc(SIZE_MAX, NULL));
}

static void test_growing_and_shrinking(void **state)
{
    (void)state;
    const nghttp2_mem *memory = h2_memory();
    char *bytes = memory->realloc(NULL, 1, NULL);
    bytes[0] = 'a';
    for (size_t size = 2; size < 3000; size++) {
        bytes = memory->realloc(bytes, size, NULL);
        assert_non_null(bytes);
        bytes[size - 1] = (char)('a' + (size - 1) % 26);
    }
    bytes = memory->realloc(bytes, 100, NULL);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(bytes[i], 'a' + i % 26);
    memory->free(bytes, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_of_all_sizes),
        cmocka_unit_test(test_more_than_is_kept),
        cmocka_unit_test(test_zeroed),
        cmocka_unit_test(test_growing_and_shrinking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
