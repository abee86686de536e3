/* Writing heads: bytes come out as they went in, and hop-by-hop fields stay behind. */
#include "http/h1_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;
static struct headers headers;
static struct h1_out out;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    headers_init(&headers, &arena);
    out = (struct h1_out){.arena = &arena};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void add(const char *name, const char *value)
{
    assert_int_equal(headers_add(&headers, slice_from_cstr(name), slice_from_cstr(value)), 0);
}

static void assert_written(const char *text)
{
    assert_false(out.failed);
    assert_true(out.len <= out.capacity);
    assert_string_equal(arena_copy(&arena, slice_of(out.data, out.len)).ptr, text);
}

/* --- Bytes ------------------------------------------------------------------------------------ */

static void nothing_is_written_of_nothing(void **state)
{
    (void)state;
    h1_out_append(&out, slice_of(NULL, 0));
    h1_out_append(&out, SLICE(""));
    assert_int_equal(out.len, 0);
    assert_false(out.failed);
}

static void bytes_survive_growth(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    for (unsigned i = 0; i < MANY; i++) {
        char byte = (char)(i * 7);
        h1_out_append(&out, slice_of(&byte, 1));
    }
    assert_false(out.failed);
    assert_int_equal(out.len, MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(out.data[i], (char)(i * 7));
    assert_true(arena.used_bytes < 8 * MANY); /* it grows by factors, not by steps */
}

static void reserved_room_is_not_moved(void **state)
{
    (void)state;
    h1_out_append(&out, SLICE("first "));
    h1_out_reserve(&out, 100);
    const char *data = out.data;
    for (unsigned i = 0; i < 10; i++)
        h1_out_append(&out, SLICE("0123456789"));
    assert_ptr_equal(out.data, data);
    assert_int_equal(out.len, 106);
}

static void exhausted_memory_is_told_and_nothing_more_is_written(void **state)
{
    (void)state;
    h1_out_append(&out, SLICE("some"));
    h1_out_reserve(&out, (size_t)PTRDIFF_MAX + 1);
    assert_true(out.failed);
    size_t len = out.len;
    h1_out_append(&out, SLICE("more"));
    h1_out_field(&out, SLICE("A"), SLICE("b"));
    h1_out_number(&out, 1);
    assert_true(out.failed);
    assert_int_equal(out.len, len);
}

static void numbers_are_written(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0, 1, 9, 10, 99, 100, UINT32_MAX, INT64_MAX, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        char expected[32];
        out = (struct h1_out){.arena = &arena};
        snprintf(expected, sizeof(expected), "%llu", (unsigned long long)numbers[i]);
        h1_out_number(&out, numbers[i]);
        assert_written(expected);
    }
}

static void fields_are_written(void **state)
{
    (void)state;
    h1_out_field(&out, SLICE("X-a"), SLICE("b c"));
    h1_out_field(&out, SLICE("Empty"), slice_of(NULL, 0));
    h1_out_field(&out, SLICE("Y"), SLICE("\xc3\xa4\t,"));
    assert_written("X-a: b c\r\nEmpty: \r\nY: \xc3\xa4\t,\r\n");
}

static void status_lines_are_written(void **state)
{
    (void)state;
    h1_out_status_line(&out, 200);
    h1_out_status_line(&out, 404);
    h1_out_status_line(&out, 299); /* the space stays where there is no phrase */
    assert_written("HTTP/1.1 200 OK\r\nHTTP/1.1 404 Not Found\r\nHTTP/1.1 299 \r\n");
}

/* --- End-to-end fields ------------------------------------------------------------------------ */

static void hop_by_hop_fields_stay_behind(void **state)
{
    (void)state;
    add("A", "1");
    add("Connection", "keep-alive");
    add("keep-ALIVE", "timeout=5");
    add("Proxy-Connection", "keep-alive");
    add("TE", "trailers");
    add("Transfer-Encoding", "chunked");
    add("Upgrade", "websocket");
    add("Content-Length", "3");
    add("Proxy-Authorization", "Basic x");
    add("Proxy-Authenticate", "Basic");
    add("Trailer", "X");
    add("a", "2");
    h1_out_end_to_end_fields(&out, &headers, false, 0);
    assert_written("A: 1\r\nProxy-Authorization: Basic x\r\nProxy-Authenticate: Basic\r\n"
                   "Trailer: X\r\na: 2\r\n");
}

static void what_connection_names_stays_behind(void **state)
{
    (void)state;
    add("X-One", "1");
    add("Connection", "close, x-ONE ,,X-Three");
    add("X-Two", "2");
    add("Connection", "cookie");
    add("x-three", "3");
    add("X-Thre", "4");
    add("Cookie", "a=b");
    add("x-one", "5");
    h1_out_end_to_end_fields(&out, &headers, true, 0);
    assert_written("X-Two: 2\r\nX-Thre: 4\r\n");
}

static void skipped_and_removed_fields_stay_behind(void **state)
{
    (void)state;
    add("Host", "h");
    add("Via", "v");
    add("X-Forwarded-Proto", "p"); /* has the last id */
    add("X", "1");
    add("Y", "2");
    headers_remove(&headers, SLICE("X"));
    h1_out_end_to_end_fields(&out, &headers, false,
                             UINT64_C(1) << HEADER_HOST | UINT64_C(1) << HEADER_X_FORWARDED_PROTO);
    assert_written("Via: v\r\nY: 2\r\n");
}

static void an_id_fits_the_set_of_skipped_ones(void **state)
{
    (void)state;
    assert_true(HEADER_ID_COUNT <= 64);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_written_of_nothing),
        TEST(bytes_survive_growth),
        TEST(reserved_room_is_not_moved),
        TEST(exhausted_memory_is_told_and_nothing_more_is_written),
        TEST(numbers_are_written),
        TEST(fields_are_written),
        TEST(status_lines_are_written),
        TEST(hop_by_hop_fields_stay_behind),
        TEST(what_connection_names_stays_behind),
        TEST(skipped_and_removed_fields_stay_behind),
        TEST(an_id_fits_the_set_of_skipped_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
