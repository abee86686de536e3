/* Bodies and messages: how a body is read and let go of, what responses of our own hold, and the
 * tables of methods, statuses and dates. */
#include "http/body.h"
#include "http/message.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static struct arena arena;
static struct request request;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    request = (struct request){.arena = &arena};
    headers_init(&request.headers, &arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void assert_slice(struct slice slice, const char *text)
{
    assert_int_equal(slice.len, strlen(text));
    assert_memory_equal(slice.ptr, text, slice.len);
}

/* --- Bodies ----------------------------------------------------------------------------------- */

static void an_empty_body_has_ended(void **state)
{
    (void)state;
    struct body body;
    struct slice piece;
    body_init_empty(&body);
    assert_true(body_is_empty(&body));
    assert_true(body.ended);
    assert_int_equal(body_read(&body, &piece, 1, 0), 0);
    body_release(&body);
    body_release(&body);
    body_init_bytes(&body, SLICE(""));
    assert_true(body_is_empty(&body));
    assert_int_equal(body_read(&body, &piece, 1, 0), 0);
}

static void bytes_are_lent_once(void **state)
{
    (void)state;
    static const char bytes[] = "some\0bytes";
    struct body body;
    struct slice pieces[BODY_SLICES_MAX];
    body_init_bytes(&body, slice_of(bytes, sizeof(bytes)));
    assert_int_equal(body.length, sizeof(bytes));
    assert_false(body_is_empty(&body));
    assert_false(body.ended);
    assert_int_equal(body_read(&body, pieces, BODY_SLICES_MAX, 0), 1);
    assert_ptr_equal(pieces[0].ptr, bytes);
    assert_int_equal(pieces[0].len, sizeof(bytes));
    assert_int_equal(body.bytes_read, sizeof(bytes));
    assert_true(body.ended);
    assert_int_equal(body_read(&body, pieces, BODY_SLICES_MAX, 0), 0);
    assert_int_equal(body.bytes_read, sizeof(bytes));
}

/* A source that lends two slices a read until it fails or has given all. */
struct source {
    int reads_left;
    int failure; /* what comes then, 0: the end */
    int released;
};

static int read_source(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct source *source = body->source;
    assert_int_equal(deadline, 42);
    assert_int_equal(max, 3);
    if (!source->reads_left) {
        body->ended = source->failure == 0;
        return source->failure;
    }
    source->reads_left--;
    out[0] = SLICE("ab");
    out[1] = SLICE("cde");
    return 2;
}

static void release_source(struct body *body)
{
    struct source *source = body->source;
    source->released++;
}

static const struct body_ops source_ops = {.read = read_source, .release = release_source};

static void what_is_read_is_counted(void **state)
{
    (void)state;
    struct source source = {.reads_left = 2};
    struct body body = {.ops = &source_ops, .source = &source, .length = -1};
    struct slice pieces[3];
    assert_false(body_is_empty(&body));
    assert_int_equal(body_read(&body, pieces, 3, 42), 2);
    assert_int_equal(body.bytes_read, 5);
    assert_int_equal(body_read(&body, pieces, 3, 42), 2);
    assert_int_equal(body_read(&body, pieces, 3, 42), 0);
    assert_int_equal(body.bytes_read, 10);
    assert_true(body.ended);
    body_release(&body);
    body_release(&body);
    assert_int_equal(source.released, 1);
}

/* A body that was cut short is never one that ended. */
static void a_failure_is_no_end(void **state)
{
    (void)state;
    struct source source = {.reads_left = 1, .failure = -ECONNRESET};
    struct body body = {.ops = &source_ops, .source = &source, .length = -1};
    struct slice pieces[3];
    assert_int_equal(body_read(&body, pieces, 3, 42), 2);
    assert_int_equal(body_read(&body, pieces, 3, 42), -ECONNRESET);
    assert_int_equal(body_read(&body, pieces, 3, 42), -ECONNRESET);
    assert_false(body.ended);
    assert_int_equal(body.bytes_read, 5);
    body_release(&body);
    assert_int_equal(source.released, 1);
}

static void a_released_body_reads_as_ended(void **state)
{
    (void)state;
    struct source source = {.reads_left = 1};
    struct body body = {.ops = &source_ops, .source = &source, .length = 10};
    struct slice pieces[3];
    body_release(&body);
    assert_int_equal(source.released, 1);
    assert_int_equal(body_read(&body, pieces, 3, 42), 0);
    assert_int_equal(source.reads_left, 1);
}

/* --- Responses -------------------------------------------------------------------------------- */

static void a_new_response_is_empty(void **state)
{
    (void)state;
    struct response *response = response_create(&request, 204);
    assert_int_equal(response->status, 204);
    assert_int_equal(response->error, RESPONSE_OK);
    assert_int_equal(response->headers.count, 0);
    assert_int_equal(response->trailers.count, 0);
    assert_true(body_is_empty(&response->body));
    assert_null(response->tunnel);
    assert_ptr_equal(response->request, &request);
}

static void a_text_is_copied(void **state)
{
    (void)state;
    char text[] = "hello";
    struct slice piece;
    struct response *response = response_create_text(&request, 200, slice_from_cstr(text));
    text[0] = 'j';
    assert_slice(headers_get_id(&response->headers, HEADER_CONTENT_TYPE),
                 "text/plain; charset=utf-8");
    assert_int_equal(response->body.length, 5);
    assert_int_equal(body_read(&response->body, &piece, 1, 0), 1);
    assert_slice(piece, "hello");
}

/* What failed is for the log and for scripts, not for the client. */
static void a_failure_tells_the_client_no_details(void **state)
{
    (void)state;
    static const struct {
        uint16_t status;
        enum response_error error;
        const char *text;
        bool retry_after;
    } cases[] = {
        {502, RESPONSE_CONNECT_FAILED, "Bad Gateway\n", false},
        {503, RESPONSE_NO_PEER, "Service Unavailable\n", true},
        {503, RESPONSE_OVERLOADED, "Service Unavailable\n", true},
        {504, RESPONSE_TIMED_OUT, "Gateway Timeout\n", false},
        {413, RESPONSE_BODY_TOO_LARGE, "Content Too Large\n", false},
        {500, RESPONSE_LAYER_FAILED, "Internal Server Error\n", false},
        {599, RESPONSE_MALFORMED, "\n", false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slice piece;
        struct response *response = response_create_error(&request, cases[i].status, cases[i].error,
                                                          SLICE("10.0.0.1:80: a secret"));
        assert_int_equal(response->status, cases[i].status);
        assert_int_equal(response->error, cases[i].error);
        assert_slice(response->error_text, "10.0.0.1:80: a secret");
        assert_int_equal(body_read(&response->body, &piece, 1, 0), 1);
        assert_slice(piece, cases[i].text);
        assert_int_equal(headers_get_id(&response->headers, HEADER_RETRY_AFTER).ptr != NULL,
                         cases[i].retry_after);
    }
}

/* --- Tables ----------------------------------------------------------------------------------- */

/* The table is searched by halves: one status out of order would hide others. */
static void statuses_have_their_phrases(void **state)
{
    (void)state;
    static const struct {
        uint16_t status;
        const char *phrase;
    } cases[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {103, "Early Hints"},
        {200, "OK"},
        {204, "No Content"},
        {206, "Partial Content"},
        {226, "IM Used"},
        {300, "Multiple Choices"},
        {304, "Not Modified"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {416, "Range Not Satisfiable"},
        {421, "Misdirected Request"},
        {426, "Upgrade Required"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {511, "Network Authentication Required"},
        {0, ""},
        {99, ""},
        {104, ""},
        {299, ""},
        {418, ""},
        {599, ""},
        {999, ""},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_slice(http_reason_phrase(cases[i].status), cases[i].phrase);
    unsigned count = 0;
    for (uint16_t status = 0; status < 1000; status++)
        count += http_reason_phrase(status).len > 0;
    assert_int_equal(count, 60); /* as IANA lists them, without 104, 306, 418 and 510 */
}

static void responses_without_a_body_are_known(void **state)
{
    (void)state;
    for (uint16_t status = 100; status < 600; status++) {
        bool never = status < 200 || status == 204 || status == 304;
        assert_int_equal(http_response_bodyless(METHOD_GET, status), never);
        assert_int_equal(http_response_bodyless(METHOD_POST, status), never);
        assert_true(http_response_bodyless(METHOD_HEAD, status));
        assert_int_equal(http_response_bodyless(METHOD_CONNECT, status), never || status < 300);
    }
}

static void methods_are_known_by_their_exact_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum http_method method;
        bool idempotent;
    } cases[] = {
        {"GET", METHOD_GET, true},         {"HEAD", METHOD_HEAD, true},
        {"POST", METHOD_POST, false},      {"PUT", METHOD_PUT, true},
        {"DELETE", METHOD_DELETE, true},   {"CONNECT", METHOD_CONNECT, false},
        {"OPTIONS", METHOD_OPTIONS, true}, {"TRACE", METHOD_TRACE, true},
        {"PATCH", METHOD_PATCH, false},    {"get", METHOD_OTHER, false},
        {"GETS", METHOD_OTHER, false},     {"GE", METHOD_OTHER, false},
        {"PURGE", METHOD_OTHER, false},    {"", METHOD_OTHER, false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum http_method method = http_method_of(slice_from_cstr(cases[i].name));
        assert_int_equal(method, cases[i].method);
        assert_int_equal(http_method_idempotent(method), cases[i].idempotent);
    }
}

static void dates_are_written_in_the_preferred_form(void **state)
{
    (void)state;
    struct tm utc = {0};
    time_t before = time(NULL);
    struct slice date = http_date_now(1000000);
    time_t after = time(NULL);
    assert_int_equal(date.len, strlen("Mon, 23 Nov 2026 07:00:00 GMT"));
    const char *end = strptime(date.ptr, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    assert_ptr_equal(end, date.ptr + date.len);
    assert_in_range(timegm(&utc), before, after);
    /* A second later it is made anew: the loop's clock is not ours, but it goes on as ours does. */
    assert_slice(http_date_now(1000000), arena_copy(&arena, date).ptr);
    time_t then = time(NULL);
    http_date_now(1002000);
    strptime(http_date_now(1002000).ptr, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    assert_in_range(timegm(&utc), then, time(NULL));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_body_has_ended),
        TEST(bytes_are_lent_once),
        TEST(what_is_read_is_counted),
        TEST(a_failure_is_no_end),
        TEST(a_released_body_reads_as_ended),
        TEST(a_new_response_is_empty),
        TEST(a_text_is_copied),
        TEST(a_failure_tells_the_client_no_details),
        TEST(statuses_have_their_phrases),
        TEST(responses_without_a_body_are_known),
        TEST(methods_are_known_by_their_exact_names),
        TEST(dates_are_written_in_the_preferred_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
