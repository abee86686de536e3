/* Header fields: order, case, holes, ids, lists, and which bytes names and values may have. */
#include "http/headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

static struct arena arena;
static struct headers headers;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    headers_init(&headers, &arena);
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

static void assert_slice(struct slice slice, const char *text)
{
    assert_int_equal(slice.len, strlen(text));
    assert_memory_equal(slice.ptr, text, slice.len);
}

/* All fields as headers_next gives them, "name=value;" each. */
static const char *listed(void)
{
    static char text[512];
    uint32_t at = 0;
    size_t len = 0;
    text[0] = '\0';
    for (struct header *header; (header = headers_next(&headers, &at));)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%.*s=%.*s;", (int)header->name.len,
                                header->name.ptr, (int)header->value.len, header->value.ptr);
    return text;
}

/* --- The map ---------------------------------------------------------------------------------- */

static void nothing_is_found_in_none(void **state)
{
    (void)state;
    uint32_t at = 0;
    assert_null(headers_next(&headers, &at));
    assert_null(headers_find(&headers, SLICE("X"), NULL));
    assert_null(headers_get(&headers, SLICE("Host")).ptr);
    assert_int_equal(headers_remove(&headers, SLICE("X")), 0);
    assert_false(headers_has_token(&headers, HEADER_CONNECTION, SLICE("close")));
}

static void order_and_spelling_are_kept(void **state)
{
    (void)state;
    add("Host", "h");
    add("x-A", "1");
    add("SET-cookie", "a");
    add("X-a", "2");
    assert_string_equal(listed(), "Host=h;x-A=1;SET-cookie=a;X-a=2;");
}

static void every_field_of_a_name_is_found_in_either_case(void **state)
{
    (void)state;
    add("X-A", "1");
    add("Other", "o");
    add("x-a", "2");
    add("Set-Cookie", "a");
    add("set-COOKIE", "b");

    struct header *first = headers_find(&headers, SLICE("X-a"), NULL);
    assert_slice(first->value, "1");
    struct header *second = headers_find(&headers, SLICE("X-a"), first);
    assert_slice(second->value, "2");
    assert_null(headers_find(&headers, SLICE("X-a"), second));

    first = headers_find_id(&headers, HEADER_SET_COOKIE, NULL);
    assert_slice(first->value, "a");
    assert_slice(headers_find(&headers, SLICE("set-cookie"), first)->value, "b");
    assert_slice(headers_get_id(&headers, HEADER_SET_COOKIE), "a");
    assert_null(headers_get(&headers, SLICE("X-")).ptr);
    assert_null(headers_get(&headers, SLICE("X-AA")).ptr);
}

/* A field without a value is there; one that is missing is not. */
static void an_empty_value_is_a_value(void **state)
{
    (void)state;
    add("X", "");
    assert_non_null(headers_get(&headers, SLICE("x")).ptr);
    assert_int_equal(headers_get(&headers, SLICE("x")).len, 0);
}

static void removed_fields_are_seen_by_nobody(void **state)
{
    (void)state;
    add("A", "1");
    add("Via", "x");
    add("a", "2");
    add("B", "3");
    assert_int_equal(headers_remove(&headers, SLICE("a")), 2);
    assert_int_equal(headers_remove(&headers, SLICE("a")), 0);
    assert_int_equal(headers_remove_id(&headers, HEADER_VIA), 1);
    assert_null(headers_get(&headers, SLICE("A")).ptr);
    assert_null(headers_get_id(&headers, HEADER_VIA).ptr);
    assert_string_equal(listed(), "B=3;");
    add("A", "4");
    assert_string_equal(listed(), "B=3;A=4;");
}

static void setting_replaces_all_in_the_place_of_the_first(void **state)
{
    (void)state;
    add("A", "1");
    add("X", "2");
    add("B", "3");
    add("x", "4");
    assert_int_equal(headers_set(&headers, SLICE("x"), SLICE("5")), 0);
    assert_string_equal(listed(), "A=1;x=5;B=3;");
    assert_int_equal(headers_set(&headers, SLICE("Content-Type"), SLICE("t")), 0);
    assert_int_equal(headers_set(&headers, SLICE("content-type"), SLICE("u")), 0);
    assert_string_equal(listed(), "A=1;x=5;B=3;content-type=u;");
    assert_slice(headers_get_id(&headers, HEADER_CONTENT_TYPE), "u");
    headers_remove(&headers, SLICE("X"));
    assert_int_equal(headers_set(&headers, SLICE("X"), SLICE("6")), 0);
    assert_string_equal(listed(), "A=1;B=3;content-type=u;X=6;");
}

static void many_fields_fit(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static char names[MANY][8];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "X-%u", i);
        add(names[i], names[i]);
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_slice(headers_get(&headers, slice_from_cstr(names[i])), names[i]);
    assert_int_equal(headers.count, MANY);
}

/* --- Ids -------------------------------------------------------------------------------------- */

static const char *const known[] = {
    [HEADER_ACCEPT_ENCODING] = "Accept-Encoding",
    [HEADER_AUTHORIZATION] = "Authorization",
    [HEADER_CONNECTION] = "Connection",
    [HEADER_CONTENT_ENCODING] = "Content-Encoding",
    [HEADER_CONTENT_LENGTH] = "Content-Length",
    [HEADER_CONTENT_TYPE] = "Content-Type",
    [HEADER_COOKIE] = "Cookie",
    [HEADER_DATE] = "Date",
    [HEADER_EXPECT] = "Expect",
    [HEADER_FORWARDED] = "Forwarded",
    [HEADER_HOST] = "Host",
    [HEADER_KEEP_ALIVE] = "Keep-Alive",
    [HEADER_LOCATION] = "Location",
    [HEADER_PROXY_AUTHENTICATE] = "Proxy-Authenticate",
    [HEADER_PROXY_AUTHORIZATION] = "Proxy-Authorization",
    [HEADER_PROXY_CONNECTION] = "Proxy-Connection",
    [HEADER_RETRY_AFTER] = "Retry-After",
    [HEADER_SERVER] = "Server",
    [HEADER_SET_COOKIE] = "Set-Cookie",
    [HEADER_TE] = "TE",
    [HEADER_TRAILER] = "Trailer",
    [HEADER_TRANSFER_ENCODING] = "Transfer-Encoding",
    [HEADER_UPGRADE] = "Upgrade",
    [HEADER_VIA] = "Via",
    [HEADER_X_FORWARDED_FOR] = "X-Forwarded-For",
    [HEADER_X_FORWARDED_HOST] = "X-Forwarded-Host",
    [HEADER_X_FORWARDED_PROTO] = "X-Forwarded-Proto",
};

/* An id that its name does not lead to would let a hop-by-hop field through. */
static void every_id_is_found_by_its_name_and_no_other(void **state)
{
    (void)state;
    assert_int_equal(sizeof(known) / sizeof(known[0]), HEADER_ID_COUNT);
    for (unsigned id = 1; id < HEADER_ID_COUNT; id++) {
        char name[32];
        size_t len = strlen(known[id]);
        memcpy(name, known[id], len + 1);
        assert_int_equal(header_id_of(slice_of(name, len)), id);
        for (size_t i = 0; i < len; i++)
            name[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]);
        assert_int_equal(header_id_of(slice_of(name, len)), id);
        assert_int_not_equal(header_id_of(slice_of(name, len - 1)), id);
        for (size_t i = 0; i < len; i++)
            for (unsigned byte = 0; byte < 256; byte++) {
                char other[32];
                memcpy(other, known[id], len);
                other[i] = (char)byte;
                bool same = strncasecmp(&other[i], &known[id][i], 1) == 0;
                assert_int_equal(header_id_of(slice_of(other, len)), same ? id : HEADER_OTHER);
            }
    }
    assert_int_equal(header_id_of(SLICE("")), HEADER_OTHER);
    assert_int_equal(header_id_of(SLICE("Access-Control-Allow-Credentials")), HEADER_OTHER);
}

/* --- Lists ------------------------------------------------------------------------------------ */

static void tokens_are_found_in_lists(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        bool has;
    } cases[] = {
        {"close", true},      {"CLOSE", true},   {"x, close", true}, {"x,\t close \t,y", true},
        {",,close,", true},   {"closed", false}, {"clos", false},    {"x close", false},
        {"\"close\"", false}, {"", false},       {",", false},       {"close;q=1", false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        headers_init(&headers, &arena);
        add("Connection", cases[i].list);
        assert_int_equal(headers_has_token(&headers, HEADER_CONNECTION, SLICE("Close")),
                         cases[i].has);
    }
}

static void a_list_may_span_fields(void **state)
{
    (void)state;
    add("Connection", "x");
    add("TE", "close");
    assert_false(headers_has_token(&headers, HEADER_CONNECTION, SLICE("close")));
    add("connection", "y, close");
    assert_true(headers_has_token(&headers, HEADER_CONNECTION, SLICE("close")));
    headers_remove_id(&headers, HEADER_CONNECTION);
    assert_false(headers_has_token(&headers, HEADER_CONNECTION, SLICE("close")));
}

/* --- Bytes ------------------------------------------------------------------------------------ */

/* RFC 9110 section 5.6.2 and 5.5. */
static void names_and_values_hold_what_the_grammar_allows(void **state)
{
    (void)state;
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (int byte = 0; byte < 256; byte++) {
        char text[3] = {'a', (char)byte, 'b'};
        bool in_name = byte && strchr(token, byte);
        bool in_value = byte == '\t' || (byte >= ' ' && byte != 0x7f);
        assert_int_equal(header_name_valid(slice_of(text, 3)), in_name);
        assert_int_equal(header_name_valid(slice_of(text + 1, 1)), in_name);
        assert_int_equal(header_value_valid(slice_of(text, 3)), in_value);
        assert_int_equal(header_value_valid(slice_of(text + 1, 1)), in_value);
    }
    assert_false(header_name_valid(SLICE("")));
    assert_true(header_value_valid(SLICE("")));
    assert_true(header_value_valid(slice_of(NULL, 0)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_found_in_none),
        TEST(order_and_spelling_are_kept),
        TEST(every_field_of_a_name_is_found_in_either_case),
        TEST(an_empty_value_is_a_value),
        TEST(removed_fields_are_seen_by_nobody),
        TEST(setting_replaces_all_in_the_place_of_the_first),
        TEST(many_fields_fit),
        TEST(every_id_is_found_by_its_name_and_no_other),
        TEST(tokens_are_found_in_lists),
        TEST(a_list_may_span_fields),
        TEST(names_and_values_hold_what_the_grammar_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
