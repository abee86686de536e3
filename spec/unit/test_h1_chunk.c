/* The chunked coding: whole or cut at every byte the result is the same; malformed framing, floods
 * and forbidden trailers end it. */
#include "http/h1_chunk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;
static struct headers trailers;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    headers_init(&trailers, &arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

/* Decodes the bytes in steps of `step`. Returns what ended it (-EAGAIN: more is needed); *used is
 * how much was consumed. */
static int decode(const char *bytes, size_t len, size_t step, char *body, size_t *body_len,
                  size_t *used)
{
    struct h1_chunk_decoder decoder = {.arena = &arena, .trailers = &trailers};
    int result = -EAGAIN;
    *body_len = 0;
    *used = 0;
    while (result == -EAGAIN && *used < len) {
        size_t count = len - *used < step ? len - *used : step;
        struct slice input = slice_of(bytes + *used, count);
        do {
            struct slice data;
            result = h1_chunk_decode(&decoder, &input, &data);
            if (result == 1) {
                memcpy(body + *body_len, data.ptr, data.len);
                *body_len += data.len;
            }
        } while (result == 1);
        *used += count - input.len;
        if (result == -EAGAIN)
            assert_int_equal(input.len, 0);
    }
    return result;
}

static void bodies_are_the_same_wherever_they_are_cut(void **state)
{
    (void)state;
    static const char bytes[] = "5\r\nhello\r\n"
                                "1;name=value;flag\r\n,\r\n"
                                "0006;q=\"a;b\"\r\n world\r\n"
                                "a\r\n0123456789\r\n"
                                "000\r\n"
                                "X-One: 1\r\nX-Two:two\r\n\r\n"
                                "next";
    size_t len = sizeof(bytes) - 1;
    for (size_t step = 1; step <= len; step++) {
        char body[64];
        size_t body_len;
        size_t used;
        headers_init(&trailers, &arena);
        assert_int_equal(decode(bytes, len, step, body, &body_len, &used), 0);
        assert_int_equal(used, len - 4);
        assert_int_equal(body_len, 22);
        assert_memory_equal(body, "hello, world0123456789", 22);
        assert_int_equal(trailers.count, 2);
        assert_true(slice_equal(headers_get(&trailers, SLICE("x-two")), SLICE("two")));
    }
}

static void no_part_of_a_body_is_taken_for_a_whole_one(void **state)
{
    (void)state;
    static const char bytes[] = "3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for (size_t len = 1; len < sizeof(bytes) - 1; len++) {
        char body[16];
        size_t body_len;
        size_t used;
        headers_init(&trailers, &arena);
        assert_int_equal(decode(bytes, len, len, body, &body_len, &used), -EAGAIN);
    }
}

static void malformed_framing_is_refused_wherever_it_is_cut(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\r\n",
        "g\r\n",
        "-1\r\na",
        "+1\r\na",
        " 1\r\na",
        "0x1\r\na",
        "1 \r\na",
        "1 x\r\na",
        "1\na",
        "1\ra",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rx",
        "8000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "00000000000000001\r\na\r\n",
        "1;a\nb\r\n",
        "1;a\1b\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: \1\r\n\r\n",
    };
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (size_t step = 1; step <= strlen(texts[i]); step++) {
            char body[64];
            size_t body_len;
            size_t used;
            int result = decode(texts[i], strlen(texts[i]), step, body, &body_len, &used);
            assert_true(result == -EPROTO || result == -EMSGSIZE);
        }
    }
}

/* RFC 9110 section 6.5.1: fields that frame or route a message mean nothing behind it. */
static void trailers_cannot_frame_or_route(void **state)
{
    (void)state;
    static const char *const names[] = {"Content-Length",
                                        "Transfer-Encoding",
                                        "Host",
                                        "Connection",
                                        "Trailer",
                                        "TE",
                                        "Upgrade",
                                        "Expect",
                                        "Keep-Alive",
                                        "Proxy-Connection",
                                        "Authorization",
                                        "Proxy-Authorization",
                                        "Proxy-Authenticate",
                                        "Cookie",
                                        "Set-Cookie",
                                        "Content-Type",
                                        "Content-Encoding",
                                        "Date",
                                        "Location",
                                        "Retry-After",
                                        "Forwarded",
                                        "X-Forwarded-For",
                                        "X-Forwarded-Host",
                                        "X-Forwarded-Proto",
                                        "Via"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char text[100];
        char body[8];
        size_t body_len;
        size_t used;
        headers_init(&trailers, &arena);
        int len = snprintf(text, sizeof(text), "0\r\nX: y\r\n%s: 1\r\n\r\n", names[i]);
        int result = decode(text, (size_t)len, (size_t)len, body, &body_len, &used);
        assert_int_equal(result, 0);
        if (headers_get(&trailers, slice_from_cstr(names[i])).ptr)
            fail_msg("%s is a trailer", names[i]);
        assert_int_equal(trailers.count, 1);
    }
}

static int flood(const char *piece, unsigned count, const char *start)
{
    size_t size = strlen(start) + strlen(piece) * count;
    char *text = malloc(size + 1);
    char *body = malloc(size + 1);
    char *out = stpcpy(text, start);
    for (unsigned i = 0; i < count; i++)
        out = stpcpy(out, piece);
    size_t body_len;
    size_t used;
    int result = decode(text, size, size, body, &body_len, &used);
    free(text);
    free(body);
    return result;
}

static void framing_without_data_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(flood("x", 10000, "1;"), -EMSGSIZE);
    assert_int_equal(flood("X: y\r\n", 10000, "0\r\n"), -EMSGSIZE);
    assert_int_equal(flood("x", 100000, "0\r\nX: "), -EMSGSIZE);
    assert_int_equal(flood("1;0123456789012345678901234567890123456789\r\na\r\n", 100000, ""),
                     -EMSGSIZE);
    assert_int_equal(flood("1\r\na\r\n", 100000, ""), -EAGAIN);
}

/* A long upload whose every chunk carries an extension, a signature for example, is no flood. */
static void data_pays_for_extensions(void **state)
{
    (void)state;
    enum { CHUNKS = 5000, DATA_BYTES = 256 };
    char chunk[DATA_BYTES + 128];
    char *out = stpcpy(chunk, "100;signature=0123456789012345678901234567890123456789\r\n");
    memset(out, 'x', DATA_BYTES);
    stpcpy(out + DATA_BYTES, "\r\n");
    assert_int_equal(flood(chunk, CHUNKS, ""), -EAGAIN);
}

/* Bounds are exact: the longest extension and the longest trailer section are accepted. */
static void what_just_fits_is_accepted(void **state)
{
    (void)state;
    static char text[H1_TRAILER_MAX_BYTES + 64];
    for (unsigned over = 0; over < 2; over++) {
        char body[8];
        size_t body_len;
        size_t used;
        char *out = stpcpy(text, "1;");
        memset(out, 'x', H1_CHUNK_EXTENSION_MAX_BYTES + over);
        out = stpcpy(out + H1_CHUNK_EXTENSION_MAX_BYTES + over, "\r\na\r\n0\r\n\r\n");
        int result = decode(text, (size_t)(out - text), 1, body, &body_len, &used);
        assert_int_equal(result, over ? -EMSGSIZE : 0);

        size_t value_len = H1_TRAILER_MAX_BYTES - strlen("X: \r\n\r\n") + over;
        headers_init(&trailers, &arena);
        out = stpcpy(text, "0\r\nX: ");
        memset(out, 'x', value_len);
        out = stpcpy(out + value_len, "\r\n\r\n");
        result = decode(text, (size_t)(out - text), 1, body, &body_len, &used);
        assert_int_equal(result, over ? -EMSGSIZE : 0);
        assert_int_equal(headers_get(&trailers, SLICE("x")).len, over ? 0 : value_len);
    }
}

static void the_largest_size_is_accepted(void **state)
{
    (void)state;
    struct h1_chunk_decoder decoder = {.arena = &arena, .trailers = &trailers};
    struct slice input = SLICE("7fffFFFFffffFFFF\r\nabc");
    struct slice data;
    assert_int_equal(h1_chunk_decode(&decoder, &input, &data), 1);
    assert_int_equal(data.len, 3);
    assert_true(decoder.left == (uint64_t)INT64_MAX - 3);
    assert_int_equal(h1_chunk_decode(&decoder, &input, &data), -EAGAIN);
}

/* Where nobody wants trailers they are judged all the same. */
static void unwanted_trailers_are_dropped(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
    } cases[] = {{"0\r\nX: y\r\n\r\n", 0}, {"0\r\nX y\r\n\r\n", -EPROTO}};
    for (unsigned i = 0; i < 2; i++) {
        struct h1_chunk_decoder decoder = {.arena = &arena};
        struct slice input = slice_from_cstr(cases[i].text);
        struct slice data;
        assert_int_equal(h1_chunk_decode(&decoder, &input, &data), cases[i].result);
    }
}

static void an_ended_body_takes_no_more(void **state)
{
    (void)state;
    struct h1_chunk_decoder decoder = {.arena = &arena, .trailers = &trailers};
    struct slice input = SLICE("0\r\n\r\n1\r\n");
    struct slice data;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(h1_chunk_decode(&decoder, &input, &data), 0);
        assert_int_equal(input.len, 3);
    }
}

static void sizes_are_written_as_they_are_read(void **state)
{
    (void)state;
    static const struct {
        uint64_t size;
        const char *text;
    } cases[] = {
        {0, "0\r\n"},
        {1, "1\r\n"},
        {15, "f\r\n"},
        {16, "10\r\n"},
        {65536, "10000\r\n"},
        {INT64_MAX, "7fffffffffffffff\r\n"},
        {UINT64_MAX, "ffffffffffffffff\r\n"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[H1_CHUNK_HEADER_MAX_BYTES];
        unsigned len = h1_chunk_header(text, cases[i].size);
        assert_int_equal(len, strlen(cases[i].text));
        assert_memory_equal(text, cases[i].text, len);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bodies_are_the_same_wherever_they_are_cut),
        TEST(no_part_of_a_body_is_taken_for_a_whole_one),
        TEST(malformed_framing_is_refused_wherever_it_is_cut),
        TEST(trailers_cannot_frame_or_route),
        TEST(framing_without_data_is_bounded),
        TEST(data_pays_for_extensions),
        TEST(what_just_fits_is_accepted),
        TEST(the_largest_size_is_accepted),
        TEST(unwanted_trailers_are_dropped),
        TEST(an_ended_body_takes_no_more),
        TEST(sizes_are_written_as_they_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
