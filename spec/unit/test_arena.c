/* The arena: alignment, reuse, bounds, clean-ups; and the slices and lists below it. */
#include "base/arena.h"
#include "base/list.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void memory_is_aligned_and_disjoint(void **state)
{
    (void)state;
    unsigned char *blocks[500];
    size_t sizes[500];
    for (unsigned i = 0; i < 500; i++) {
        sizes[i] = i * 37 % 300;
        blocks[i] = arena_alloc(&arena, sizes[i]);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % _Alignof(max_align_t), 0);
        memset(blocks[i], (int)(i & 0xff), sizes[i]);
    }
    for (unsigned i = 0; i < 500; i++)
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(blocks[i][at], i & 0xff);
    assert_true(arena.used_bytes >= 500 * 37);
}

static void large_blocks_have_chunks_of_their_own(void **state)
{
    (void)state;
    char *small = arena_alloc(&arena, 16);
    char *large = arena_zalloc(&arena, 1 << 20);
    assert_non_null(large);
    assert_int_equal(large[(1 << 20) - 1], 0);
    memset(large, 1, 1 << 20);
    memset(small, 2, 16);
    assert_int_equal(large[0], 1);
}

static void impossible_sizes_fail(void **state)
{
    (void)state;
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 8));
    assert_null(arena_alloc(&arena, SIZE_MAX - 64));
    assert_null(arena_zalloc(&arena, (size_t)PTRDIFF_MAX + 1));
    assert_non_null(arena_alloc(&arena, 1)); /* goes on */
}

static void is_empty_and_of_use_again_behind_its_end(void **state)
{
    (void)state;
    arena_alloc(&arena, 100);
    arena_fini(&arena);
    assert_int_equal(arena.used_bytes, 0);
    arena_alloc(&arena, 100000); /* a chunk of its own */
    for (unsigned i = 0; i < 100; i++)
        arena_alloc(&arena, 1000);
    arena_fini(&arena);
    assert_non_null(arena_alloc(&arena, 100));
    arena_fini(&arena);
    arena_fini(&arena);
}

static char order[8];

static void note_defer(void *arg)
{
    strncat(order, arg, 1);
}

static void defer_another(void *arg)
{
    (void)arg;
    arena_defer(&arena, note_defer, "z");
}

/* The end of a chunk is where the next block does not follow the one before it. */
static size_t bytes_in_a_chunk(void)
{
    char *first = arena_alloc(&arena, 16), *last = first;
    for (char *next; (next = arena_alloc(&arena, 16)) == last + 16;)
        last = next;
    return (size_t)(last + 16 - first);
}

static void a_frugal_one_grows_in_small_chunks_until_its_end(void **state)
{
    (void)state;
    arena_be_frugal(&arena);
    size_t small = bytes_in_a_chunk();
    assert_true(small > 800 && small <= 1024);
    assert_non_null(arena_alloc(&arena, 10000));
    arena_fini(&arena);
    assert_true(bytes_in_a_chunk() > 3 * small);
}

static void clean_ups_run_in_reverse_order_once(void **state)
{
    (void)state;
    order[0] = '\0';
    assert_int_equal(arena_defer(&arena, note_defer, "a"), 0);
    assert_int_equal(arena_defer(&arena, defer_another, NULL), 0);
    assert_int_equal(arena_defer(&arena, note_defer, "b"), 0);
    arena_fini(&arena);
    assert_string_equal(order, "bza");
    arena_fini(&arena);
    assert_string_equal(order, "bza");
    arena_defer(&arena, note_defer, "c");
    arena_fini(&arena);
    assert_string_equal(order, "bzac");
}

static void copies_end_in_a_nul(void **state)
{
    (void)state;
    struct slice copy = arena_copy(&arena, SLICE("abc"));
    assert_int_equal(copy.len, 3);
    assert_string_equal(copy.ptr, "abc");
    copy = arena_copy(&arena, (struct slice){NULL, 0});
    assert_int_equal(copy.len, 0);
    assert_string_equal(copy.ptr, "");
    struct slice text = arena_printf(&arena, "%d-%s", 42, "x");
    assert_int_equal(text.len, 4);
    assert_string_equal(text.ptr, "42-x");
    text = arena_printf(&arena, "%5000s", "long");
    assert_int_equal(text.len, 5000);
    text = arena_printf(&arena, "%s", "");
    assert_int_equal(text.len, 0);
    assert_non_null(text.ptr);
}

static void slices_compare_and_trim(void **state)
{
    (void)state;
    assert_true(slice_equal(SLICE("a"), SLICE("a")));
    assert_false(slice_equal(SLICE("a"), SLICE("A")));
    assert_true(slice_equal((struct slice){NULL, 0}, SLICE("")));
    assert_true(slice_equal_nocase(SLICE("Content-LENGTH"), SLICE("content-length")));
    assert_false(slice_equal_nocase(SLICE("[" /* 0x5b */), SLICE("{" /* 0x7b */)));
    assert_false(slice_equal_nocase(SLICE("a"), SLICE("ab")));
    assert_true(slice_starts_with(SLICE("unix:/a"), SLICE("unix:")));
    assert_false(slice_starts_with(SLICE("un"), SLICE("unix:")));
    assert_true(slice_equal(slice_trim(SLICE(" \t a b\t ")), SLICE("a b")));
    assert_int_equal(slice_trim(SLICE(" \t ")).len, 0);
    assert_int_equal(slice_from_cstr(NULL).len, 0);
}

struct item {
    int value;
    struct list link;
};

static int sum(struct list *head)
{
    int total = 0;
    list_for_each(node, head)
    {
        total = total * 10 + container_of(node, struct item, link)->value;
    }
    return total;
}

static void lists_keep_their_order(void **state)
{
    (void)state;
    struct list head, other;
    struct item items[4] = {{.value = 1}, {.value = 2}, {.value = 3}, {.value = 4}};
    list_init(&head);
    assert_true(list_empty(&head));
    for (unsigned i = 0; i < 4; i++)
        list_init(&items[i].link);
    list_push_back(&head, &items[0].link);
    list_push_back(&head, &items[1].link);
    list_push_front(&head, &items[2].link);
    list_insert(&items[1].link, &items[3].link);
    assert_int_equal(sum(&head), 3142);
    list_remove(&items[0].link);
    list_remove(&items[0].link); /* harmless */
    assert_true(list_empty(&items[0].link));
    assert_int_equal(sum(&head), 342);
    list_move_all(&other, &head);
    assert_true(list_empty(&head));
    assert_int_equal(sum(&other), 342);
    list_move_all(&head, &other);
    list_move_all(&other, &other); /* of nothing */
    assert_int_equal(sum(&head), 342);
}

static void log_levels_parse(void **state)
{
    (void)state;
    enum log_level level = LOG_LEVEL_INFO;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_false(log_level_parse("loud", &level));
    assert_false(log_level_parse("", &level));
}

static void log_budgets_count_what_they_swallow(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    uint32_t suppressed = 99, passed = 0;
    for (unsigned i = 0; i < 100; i++)
        passed += log_limit_pass(&limit, 3, &suppressed);
    /* A second may have gone by meanwhile, which brings a new budget. */
    assert_true(passed >= 3 && passed <= 6);
    assert_true(limit.suppressed + suppressed >= 94);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(memory_is_aligned_and_disjoint),
        TEST(large_blocks_have_chunks_of_their_own),
        TEST(impossible_sizes_fail),
        TEST(is_empty_and_of_use_again_behind_its_end),
        TEST(a_frugal_one_grows_in_small_chunks_until_its_end),
        TEST(clean_ups_run_in_reverse_order_once),
        TEST(copies_end_in_a_nul),
        cmocka_unit_test(slices_compare_and_trim),
        cmocka_unit_test(lists_keep_their_order),
        cmocka_unit_test(log_levels_parse),
        cmocka_unit_test(log_budgets_count_what_they_swallow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
