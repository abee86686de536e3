/* What is refused of a request's head and never forwarded: the long list, one by one. */
#include "http/h1_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;
static const struct h1_limits limits = {
    .line_max_bytes = 8192, .head_max_bytes = 32768, .header_count_max = 100};

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

/* Scans and parses; true if neither refuses. */
static bool accepted(const char *text, size_t len)
{
    struct request request = {.arena = &arena};
    struct h1_scan scan = {0};
    struct h1_head head = {0};
    const char *why = NULL;
    headers_init(&request.headers, &arena);
    int length = h1_head_scan(&scan, text, (uint32_t)len, &limits, true, &why);
    if (length > 0 && h1_parse_request(&request, text, (uint32_t)length, &limits, &head, &why) == 0)
        return true;
    assert_int_not_equal(length, H1_INCOMPLETE);
    assert_non_null(why);
    return false;
}

#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

static void malformed_lines_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } cases[] = {
        /* what is no HTTP/1.x, or has something before it */
        BYTES("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BYTES(" GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BYTES("\0GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BYTES("\xef\xbb\xbfGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BYTES("\x16\3\1\2\0\1\0\1\xfc\3\3\r\n\r\n"),
        BYTES("OPTIONS rtsp://h/ RTSP/1.0\r\nHost: h\r\n\r\n"),
        BYTES("SOURCE /x ICE/1.0\r\nHost: h\r\n\r\n"),
        BYTES("GET / http/1.1\r\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/1.10\r\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/01.1\r\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/1\r\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/1.1.\r\nHost: h\r\n\r\n"),
        BYTES("GET /\r\n\r\n"),
        BYTES("GET\r\n\r\n"),
        BYTES("GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        BYTES("GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BYTES("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        BYTES("G(T / HTTP/1.1\r\nHost: h\r\n\r\n"),
        /* lines that end or begin as they must not */
        BYTES("GET / HTTP/1.1\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\n\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\n\rHost: h\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n Content-Length: 3\r\n\r\n"),
        /* names and values */
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX\t: a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX Y: a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX(: a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX\xc3: a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX\0: a\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX: a\1b\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: h\r\nX: a\x7f\r\n\r\n"),
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (accepted(cases[i].text, cases[i].len))
            fail_msg("%s was accepted", cases[i].text);
}

/* Each byte at each place of a value, beside bytes that the scan might take for its like. */
static void control_bytes_are_refused_wherever_they_stand(void **state)
{
    (void)state;
    enum { PLACES = 20 };
    static const char begin[] = "GET / HTTP/1.1\r\nHost: h\r\nA: x";
    static const char fills[] = {'a', '\t', '!', '\x80', '\xff', '~'};
    for (unsigned fill = 0; fill < sizeof(fills); fill++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            for (unsigned place = 0; place < PLACES; place++) {
                char text[128];
                int used = snprintf(text, sizeof(text), "%s", begin);
                memset(text + used, fills[fill], PLACES);
                text[used + (int)place] = (char)byte;
                memcpy(text + used + PLACES, "x\r\n\r\n", 5);
                bool clean = (byte >= ' ' && byte != 0x7f) || byte == '\t';
                assert_int_equal(accepted(text, (size_t)used + PLACES + 5), clean);
            }
        }
    }
}

static void one_valid_host_is_asked_for(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool valid;
    } cases[] = {
        {"Host: h\r\n", true},
        {"Host: a-b.example:80\r\n", true},
        {"Host: 127.0.0.1:8080\r\n", true},
        {"Host: [2001:db8::1]:8080\r\n", true},
        {"Host: [::ffff:1.2.3.4]\r\n", true},
        {"Host: a%20b\r\n", true},
        {"Host: a:\r\n", true}, /* RFC 3986 section 3.2.3: the port may be empty */
        {"", false},
        {"Host:\r\n", false},
        {"Host: h\r\nHost: h\r\n", false},
        {"Host: h\r\nhOST: g\r\n", false},
        {"Host: a b\r\n", false},
        {"Host: a, b\r\n", false},
        {"Host: a/b\r\n", false},
        {"Host: a?b\r\n", false},
        {"Host: a@b\r\n", false},
        {"Host: http://a\r\n", false},
        {"Host: a:port\r\n", false},
        {"Host: a:65536\r\n", false},
        {"Host: a:99999999999999999999\r\n", false},
        {"Host: a:-1\r\n", false},
        {"Host: a:80:80\r\n", false},
        {"Host: :80\r\n", false},
        {"Host: ::1\r\n", false},
        {"Host: [::1\r\n", false},
        {"Host: []\r\n", false},
        {"Host: [::1]80\r\n", false},
        {"Host: [::1%25eth0]\r\n", false},
        {"Host: a\xc3\xa4\r\n", false},
        {"Host: a%\r\n", false},
        {"Host: a%4\r\n", false},
        {"Host: a%zz\r\n", false},
        {"Host: a%00\r\n", false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[200];
        int len = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n%s\r\n", cases[i].fields);
        if (accepted(text, (size_t)len) != cases[i].valid)
            fail_msg("\"%s\" was %s", cases[i].fields, cases[i].valid ? "refused" : "accepted");
    }
}

static void bodies_are_framed_in_one_way_or_refused(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: deflate, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: 1.0\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 18446744073709551617\r\n",
        "Content-Length: 00000000000000000000001\r\n",
    };
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char text[200];
        int len = snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields[i]);
        if (accepted(text, (size_t)len))
            fail_msg("\"%s\" was accepted", fields[i]);
    }
    static const char old[] = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_false(accepted(old, sizeof(old) - 1));
}

static void targets_that_others_read_otherwise_are_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "GET /a#b",        "GET #",           "GET a",           "GET *",
        "GET //h/a#",      "GET ftp://h/",    "GET http:///a",   "GET http://",
        "GET http:/a",     "GET http://u@h/", "GET http://h:x/", "GET http://h /",
        "GET /a\\b",       "GET /a\"b",       "GET /<a>",        "GET /\xc3\xa4",
        "GET /a\tb",       "GET /a\1b",       "GET ?a",          "POST *",
        "CONNECT /",       "CONNECT h",       "CONNECT h:",      "CONNECT h:0x50",
        "CONNECT h:70000", "CONNECT [::1]",   "CONNECT [::1]:",  "CONNECT http://h:80",
        "CONNECT u@h:1",   "CONNECT *",
    };
    for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        char text[200];
        int len = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: h\r\n\r\n", lines[i]);
        if (accepted(text, (size_t)len))
            fail_msg("\"%s\" was accepted", lines[i]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(malformed_lines_are_refused),
        TEST(control_bytes_are_refused_wherever_they_stand),
        TEST(one_valid_host_is_asked_for),
        TEST(bodies_are_framed_in_one_way_or_refused),
        TEST(targets_that_others_read_otherwise_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
