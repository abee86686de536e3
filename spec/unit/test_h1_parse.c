/* HTTP/1.x heads: what is accepted and how, wherever it is cut; what is refused, and by which code.
 * (test_h1_refuse.c has the long list of what is malformed; spec/refuse_spec.lua sends such to the
 * whole program.) */
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

static struct request new_request(void)
{
    struct request request = {.arena = &arena};
    headers_init(&request.headers, &arena);
    return request;
}

static int scan(const char *bytes, size_t len, bool is_request, const struct h1_limits *bounds)
{
    struct h1_scan state = {0};
    const char *why = NULL;
    int result = h1_head_scan(&state, bytes, (uint32_t)len, bounds, is_request, &why);
    if (result < 0)
        assert_non_null(why);
    return result;
}

/* Scans and parses; a refusal or 0. */
static int parse(struct request *request, const char *bytes, size_t len, struct h1_head *head)
{
    const char *why = NULL;
    int length = scan(bytes, len, true, &limits);
    if (length < 0)
        return length;
    assert_int_equal(length, len);
    int result = h1_parse_request(request, bytes, (uint32_t)len, &limits, head, &why);
    if (result < 0)
        assert_non_null(why);
    return result;
}

static int parse_text(struct request *request, const char *text, struct h1_head *head)
{
    return parse(request, text, strlen(text), head);
}

static void assert_slice(struct slice slice, const char *text)
{
    assert_int_equal(slice.len, strlen(text));
    assert_memory_equal(slice.ptr, text, slice.len);
}

/* --- Scanning --------------------------------------------------------------------------------- */

static const char browser[] = "GET /path?query=1 HTTP/1.1\r\n"
                              "Host: www.example.org\r\n"
                              "User-Agent: spec/1.0 (X11; Linux x86_64)\r\n"
                              "Accept: text/html,*/*;q=0.8\r\n"
                              "Cookie: a=b; c=\"d\"\r\n"
                              "X-Bytes: \xc3\xa4\t.\r\n"
                              "\r\n";

static void the_end_is_found_however_the_bytes_arrive(void **state)
{
    (void)state;
    size_t len = sizeof(browser) - 1;
    for (uint32_t step = 1; step <= len; step++) {
        struct h1_scan scan_state = {0};
        const char *why = NULL;
        uint32_t have = 0;
        int result = H1_INCOMPLETE;
        while (result == H1_INCOMPLETE && have < len) {
            have = have + step < len ? have + step : (uint32_t)len;
            result = h1_head_scan(&scan_state, browser, have, &limits, true, &why);
        }
        assert_int_equal(result, len);
    }
}

static void no_part_of_a_head_is_taken_for_a_whole_one(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof(browser) - 1; len++)
        assert_int_equal(scan(browser, len, true, &limits), H1_INCOMPLETE);
}

static void bytes_behind_the_head_are_left_alone(void **state)
{
    (void)state;
    char text[sizeof(browser) + 100];
    memcpy(text, browser, sizeof(browser) - 1);
    memset(text + sizeof(browser) - 1, '\0', 100);
    assert_int_equal(scan(text, sizeof(browser) - 1 + 100, true, &limits), sizeof(browser) - 1);
}

static void limits_hold(void **state)
{
    (void)state;
    struct h1_limits tight = {.line_max_bytes = 30, .head_max_bytes = 60, .header_count_max = 2};
    static const struct {
        const char *text;
        int result;
    } cases[] = {
        {"GET /12345678901234567890 HTTP/1.1\r\n", H1_LINE_TOO_LONG},
        {"GET /1234567890123456789012345678901234567890", H1_LINE_TOO_LONG},
        {"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n", H1_TOO_MANY_HEADERS},
        {"GET / HTTP/1.1\r\nA: 12345678901234567890123456789012345678901234567890\r\n\r\n",
         H1_HEAD_TOO_LONG},
        {"GET / HTTP/1.1\r\nA: 123456789012345678901234567890123456789012345678901234567890",
         H1_HEAD_TOO_LONG},
        {"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\n\r\n", 30},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(scan(cases[i].text, strlen(cases[i].text), true, &tight), cases[i].result);
}

/* Lines are looked at several bytes at a time: in a line of any length, at any place. */
static void no_control_byte_hides(void **state)
{
    (void)state;
    static const char start[] = "GET / HTTP/1.1\r\n";
    static const char controls[] = {0, 1, '\r', 0x1f, 0x7f};
    struct h1_limits wide = {.line_max_bytes = 80, .head_max_bytes = 80, .header_count_max = 2};
    for (size_t len = 1; len < 40; len++)
        for (size_t at = 0; at < len; at++)
            for (size_t i = 0; i < sizeof(controls); i++) {
                char text[80];
                size_t total =
                    (size_t)snprintf(text, sizeof(text), "%s%.*s\r\n\r\n", start, (int)len,
                                     "X: 23456789012345678901234567890123456789");
                assert_int_equal(scan(text, total, true, &wide), total);
                text[sizeof(start) - 1 + at] = controls[i];
                assert_int_equal(scan(text, total, true, &wide), H1_MALFORMED);
            }
}

/* The end of a scan that is given the bytes in steps. */
static int scan_in_steps(const char *bytes, size_t len, size_t step, const struct h1_limits *bounds)
{
    struct h1_scan scan_state = {0};
    const char *why = NULL;
    int result = H1_INCOMPLETE;
    for (size_t have = 0; result == H1_INCOMPLETE && have < len;) {
        have = have + step < len ? have + step : len;
        result = h1_head_scan(&scan_state, bytes, (uint32_t)have, bounds, true, &why);
    }
    return result;
}

/* What fits exactly does so however it arrives, and what is longer by one byte never does. */
static void limits_are_exact_however_the_bytes_arrive(void **state)
{
    (void)state;
    static const char text[] = "GET /1234567 HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
    size_t len = sizeof(text) - 1;
    struct h1_limits exact = {
        .line_max_bytes = 21, .head_max_bytes = (uint32_t)len, .header_count_max = 2};
    struct h1_limits short_line = exact;
    struct h1_limits short_head = exact;
    struct h1_limits few = exact;
    short_line.line_max_bytes--;
    short_head.head_max_bytes--;
    few.header_count_max--;
    for (size_t step = 1; step <= len; step++) {
        assert_int_equal(scan_in_steps(text, len, step, &exact), len);
        assert_int_equal(scan_in_steps(text, len, step, &short_line), H1_LINE_TOO_LONG);
        assert_int_equal(scan_in_steps(text, len, step, &short_head), H1_HEAD_TOO_LONG);
        assert_int_equal(scan_in_steps(text, len, step, &few), H1_TOO_MANY_HEADERS);
    }
}

/* --- Requests --------------------------------------------------------------------------------- */

static void a_request_is_taken_apart(void **state)
{
    (void)state;
    struct request request = new_request();
    struct h1_head head = {0};
    assert_int_equal(parse(&request, browser, sizeof(browser) - 1, &head), 0);
    assert_int_equal(request.method, METHOD_GET);
    assert_int_equal(request.version, HTTP_1_1);
    assert_slice(request.method_name, "GET");
    assert_slice(request.path, "/path");
    assert_slice(request.query, "query=1");
    assert_slice(request.authority, "www.example.org");
    assert_slice(headers_get(&request.headers, SLICE("cookie")), "a=b; c=\"d\"");
    assert_slice(headers_get(&request.headers, SLICE("x-bytes")), "\xc3\xa4\t.");
    assert_int_equal(request.headers.count, 5);
    assert_int_equal(head.framing, H1_BODY_NONE);
    assert_true(head.keep_alive);
}

static void targets_have_four_forms(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *path;
        const char *query;
        const char *authority;
    } cases[] = {
        {"GET / HTTP/1.1", "/", NULL, "h"},
        {"GET /? HTTP/1.1", "/", "", "h"},
        {"GET /a//b/../c?d?e HTTP/1.1", "/a//b/../c", "d?e", "h"},
        {"GET http://other:8080/p?q HTTP/1.1", "/p", "q", "other:8080"},
        {"GET HTTP://other HTTP/1.1", "/", NULL, "other"},
        {"GET http://other?q HTTP/1.1", "/", "q", "other"},
        {"GET http://[::1]:80/ HTTP/1.1", "/", NULL, "[::1]:80"},
        {"GET https://other/ HTTP/1.1", "/", NULL, "other"},
        {"OPTIONS * HTTP/1.1", "*", NULL, "h"},
        {"OPTIONS http://other HTTP/1.1", "*", NULL, "other"}, /* RFC 9112 section 3.2.4 */
        {"OPTIONS http://other/ HTTP/1.1", "/", NULL, "other"},
        {"OPTIONS http://other?q HTTP/1.1", "/", "q", "other"},
        {"CONNECT other:443 HTTP/1.1", "", NULL, "other:443"},
        {"CONNECT [::1]:443 HTTP/1.1", "", NULL, "[::1]:443"},
        {"PURGE /x HTTP/1.1", "/x", NULL, "h"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[200];
        struct request request = new_request();
        struct h1_head head = {0};
        snprintf(text, sizeof(text), "%s\r\nHost: h\r\n\r\n", cases[i].line);
        assert_int_equal(parse_text(&request, text, &head), 0);
        assert_slice(request.path, cases[i].path);
        assert_slice(request.authority, cases[i].authority);
        assert_true((request.query.ptr == NULL) == (cases[i].query == NULL));
        if (cases[i].query)
            assert_slice(request.query, cases[i].query);
    }
}

static void framing_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        enum h1_framing framing;
        uint64_t length;
    } cases[] = {
        {"", H1_BODY_NONE, 0},
        {"Content-Length: 0\r\n", H1_BODY_LENGTH, 0},
        {"Content-Length: 42\r\n", H1_BODY_LENGTH, 42},
        {"content-LENGTH:  00042 \r\n", H1_BODY_LENGTH, 42},
        {"Content-Length: 999999999999999999\r\n", H1_BODY_LENGTH, 999999999999999999},
        {"Transfer-Encoding: chunked\r\n", H1_BODY_CHUNKED, 0},
        {"Transfer-Encoding: CHUNKED\r\n", H1_BODY_CHUNKED, 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[200];
        struct request request = new_request();
        struct h1_head head = {0};
        snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n", cases[i].fields);
        assert_int_equal(parse_text(&request, text, &head), 0);
        assert_int_equal(head.framing, cases[i].framing);
        if (head.framing == H1_BODY_LENGTH)
            assert_true(head.content_length == cases[i].length);
    }
}

static void persistence_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: closed\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request request = new_request();
        struct h1_head head = {0};
        assert_int_equal(parse_text(&request, cases[i].text, &head), 0);
        assert_int_equal(head.keep_alive, cases[i].keep_alive);
    }
}

static void expectations_and_upgrades_are_read(void **state)
{
    (void)state;
    struct request request = new_request();
    struct h1_head head = {0};
    assert_int_equal(parse_text(&request,
                                "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n"
                                "Content-Length: 1\r\nConnection: Upgrade\r\n"
                                "Upgrade: websocket\r\n\r\n",
                                &head),
                     0);
    assert_true(request.expects_continue);
    assert_true(request.wants_upgrade);
    request = new_request();
    assert_int_equal(parse_text(&request,
                                "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
                                "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                                &head),
                     0);
    assert_false(request.expects_continue);
    assert_false(request.wants_upgrade);
}

static void refusals_have_their_codes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", H1_MALFORMED},
        {"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", H1_MALFORMED},
        {"GET / HTTP/1.1\r\nHost : h\r\n\r\n", H1_MALFORMED},
        {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", H1_BAD_VERSION},
        {"GET / HTTP/1.2\r\nHost: h\r\n\r\n", H1_MALFORMED},
        {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", H1_BAD_TRANSFER_CODING},
        {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
         H1_BAD_TRANSFER_CODING},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request request = new_request();
        struct h1_head head = {0};
        assert_int_equal(parse_text(&request, cases[i].text, &head), cases[i].result);
    }
}

/* Whatever single byte of a head is replaced by whatever other byte, what is accepted is clean. */
static void no_byte_gets_a_head_past_the_validator(void **state)
{
    (void)state;
    static const char head_text[] = "GET /a?b HTTP/1.1\r\nHost: h.x\r\nA-b: c d\r\n\r\n";
    size_t len = sizeof(head_text) - 1;
    for (size_t at = 0; at < len; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char text[sizeof(head_text)];
            memcpy(text, head_text, sizeof(head_text));
            text[at] = (char)byte;
            struct request request = new_request();
            struct h1_head head = {0};
            const char *why = NULL;
            int length = scan(text, len, true, &limits);
            if (length <= 0 ||
                h1_parse_request(&request, text, (uint32_t)length, &limits, &head, &why) != 0)
                continue;
            for (uint32_t i = 0; i < request.headers.count; i++) {
                assert_true(header_name_valid(request.headers.items[i].name));
                assert_true(header_value_valid(request.headers.items[i].value));
            }
            for (size_t i = 0; i < request.path.len; i++)
                assert_true((unsigned char)request.path.ptr[i] > ' ' &&
                            request.path.ptr[i] != 0x7f && request.path.ptr[i] != '#');
            assert_true(header_name_valid(request.method_name));
        }
    }
}

/* --- Responses -------------------------------------------------------------------------------- */

static void a_response_is_found_however_the_bytes_arrive(void **state)
{
    (void)state;
    static const char text[] = "HTTP/1.1 200 All \xc3\xa4 well\r\nDate: x\r\nEmpty:\r\n\r\n";
    size_t len = sizeof(text) - 1;
    for (size_t step = 1; step <= len; step++) {
        struct h1_scan scan_state = {0};
        const char *why = NULL;
        int result = H1_INCOMPLETE;
        for (size_t have = 0; result == H1_INCOMPLETE && have < len;) {
            have = have + step < len ? have + step : len;
            result = h1_head_scan(&scan_state, text, (uint32_t)have, &limits, false, &why);
        }
        assert_int_equal(result, len);
    }
    struct response response = {.arena = &arena};
    struct h1_head head;
    const char *why = NULL;
    headers_init(&response.headers, &arena);
    assert_int_equal(
        h1_parse_response(&response, METHOD_GET, text, (uint32_t)len, &limits, &head, &why), 0);
    assert_int_equal(response.status, 200);
    assert_slice(headers_get(&response.headers, SLICE("date")), "x");
    assert_non_null(headers_get(&response.headers, SLICE("empty")).ptr);
    assert_int_equal(response.headers.count, 2);
}

static int parse_response(struct response *response, enum http_method method, const char *text,
                          struct h1_head *head)
{
    const char *why = NULL;
    int length = scan(text, strlen(text), false, &limits);
    if (length <= 0)
        return length;
    *response = (struct response){.arena = &arena};
    headers_init(&response->headers, &arena);
    return h1_parse_response(response, method, text, (uint32_t)length, &limits, head, &why);
}

static void responses_are_framed_by_request_and_status(void **state)
{
    (void)state;
    static const struct {
        enum http_method method;
        const char *text;
        uint16_t status;
        enum h1_framing framing;
    } cases[] = {
        {METHOD_GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, H1_BODY_LENGTH},
        {METHOD_GET, "HTTP/1.1 200 OK\r\n\r\n", 200, H1_BODY_UNTIL_CLOSE},
        {METHOD_GET, "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", 200, H1_BODY_CHUNKED},
        {METHOD_HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, H1_BODY_NONE},
        {METHOD_GET, "HTTP/1.1 204 No\r\n\r\n", 204, H1_BODY_NONE},
        {METHOD_GET, "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", 304, H1_BODY_NONE},
        {METHOD_GET, "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", 103, H1_BODY_NONE},
        {METHOD_GET, "HTTP/1.0 200 OK\r\n\r\n", 200, H1_BODY_UNTIL_CLOSE},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct response response = {0};
        struct h1_head head = {0};
        assert_int_equal(parse_response(&response, cases[i].method, cases[i].text, &head), 0);
        assert_int_equal(response.status, cases[i].status);
        assert_int_equal(head.framing, cases[i].framing);
    }
}

static void malformed_responses_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 -20 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 O\tK\1\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct response response = {0};
        struct h1_head head = {0};
        assert_true(parse_response(&response, METHOD_GET, texts[i], &head) < 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_end_is_found_however_the_bytes_arrive),
        TEST(no_part_of_a_head_is_taken_for_a_whole_one),
        TEST(bytes_behind_the_head_are_left_alone),
        TEST(no_control_byte_hides),
        TEST(limits_hold),
        TEST(limits_are_exact_however_the_bytes_arrive),
        TEST(a_request_is_taken_apart),
        TEST(targets_have_four_forms),
        TEST(framing_is_read),
        TEST(persistence_is_read),
        TEST(expectations_and_upgrades_are_read),
        TEST(refusals_have_their_codes),
        TEST(no_byte_gets_a_head_past_the_validator),
        TEST(a_response_is_found_however_the_bytes_arrive),
        TEST(responses_are_framed_by_request_and_status),
        TEST(malformed_responses_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
