/* Routes: which pattern wins, what it captures, what no spelling of a path gets past. */
#include "http/exchange.h"
#include "proxy/chain.h"
#include "proxy/route_path.h"
#include "proxy/router.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ROUTES_MAX = 64 };

static struct arena arena;
static struct router *router;
static struct request request;
static struct chain chains[ROUTES_MAX];
static struct chain_step steps[ROUTES_MAX];

/* Answers with the status that its instance points at. */
static ml_response *answer(void *self, ml_request *asked, ml_next *next)
{
    (void)next;
    return response_create(asked, *(uint16_t *)self);
}

static const ml_layer answering = {.abi = ML_ABI, .name = "answer", .handle = answer};

/* A chain that answers with 200 + index. */
static const struct chain *chain_of(unsigned index)
{
    static uint16_t statuses[ROUTES_MAX];
    statuses[index] = (uint16_t)(200 + index);
    steps[index] = (struct chain_step){.layer = &answering, .self = &statuses[index]};
    chains[index] = (struct chain){.steps = &steps[index], .count = 1};
    return &chains[index];
}

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    router = router_create(&arena);
    return router ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void add_routes(const char *const *patterns, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const char *error = NULL;
        if (router_add(router, patterns[i], chain_of(i), &error) != 0)
            fail_msg("%s", error);
    }
}

/* The response to a request; an Allow field is left in `request`'s arena. */
static struct response *ask(const char *method, const char *authority, const char *path)
{
    struct chain_step step = {.layer = &router_layer, .self = router};
    struct chain chain = {.steps = &step, .count = 1};
    memset(&request, 0, sizeof(request));
    request.arena = &arena;
    headers_init(&request.headers, &arena);
    request.method_name = slice_from_cstr(method);
    request.method = http_method_of(request.method_name);
    request.authority = slice_from_cstr(authority);
    request.path = slice_from_cstr(path);
    struct response *response = chain_run(&chain, &request);
    assert_non_null(response);
    return response;
}

/* The index of the route that answers a GET; or the status, negative. */
static int route_of(const char *path)
{
    unsigned status = ask("GET", "h", path)->status;
    return status < 200 + ROUTES_MAX ? (int)status - 200 : -(int)status;
}

static const char *param(const char *name)
{
    for (unsigned i = 0; i < request.param_count; i++)
        if (slice_equal(request.params[i].name, slice_from_cstr(name)))
            return arena_copy(&arena, request.params[i].value).ptr;
    return NULL;
}

/* --- Matching --------------------------------------------------------------------------------- */

static void the_most_specific_route_wins(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/*",         "/a/:x", "/a/b", "/a/*",
                                           "/a/b/*rest", "/:y/b", "/"};
    add_routes(patterns, 7);
    assert_int_equal(route_of("/"), 6);
    assert_int_equal(route_of("/a/b"), 2);
    assert_int_equal(route_of("/a/c"), 1);
    assert_int_equal(route_of("/a/c/d"), 3);
    assert_int_equal(route_of("/a/"), 3);
    assert_int_equal(route_of("/a"), 0);
    assert_int_equal(route_of("/a/b/"), 4);
    assert_int_equal(route_of("/a/b/c"), 4);
    assert_int_equal(route_of("/z/b"), 5);
    assert_int_equal(route_of("/z/c"), 0);
}

static void what_matched_is_captured_decoded(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/users/:id/files/*path", "/:a/:b"};
    add_routes(patterns, 2);
    assert_int_equal(route_of("/users/a%20b/files/c/d%2Fe%25"), 0);
    assert_string_equal(param("id"), "a b");
    assert_string_equal(param("path"), "c/d%2Fe%");
    assert_int_equal(route_of("/x%2fy/z"), 1);
    assert_string_equal(param("a"), "x/y");
    assert_string_equal(param("b"), "z");
}

static void no_spelling_of_a_path_slips_past_a_route(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/admin/*", "/*"};
    static const char *const paths[] = {
        "/admin/x",
        "//admin/x",
        "/./admin/x",
        "/a/../admin/x",
        "/%61dmin/x",
        "/a/%2e%2E/admin/",
        "/admin//x",
        "/../admin/x",
        "/a/b/../../admin/",
        "/%2e/admin/x",
        "/a/.%2e/admin/%2e%2e/admin/x",
    };
    add_routes(patterns, 2);
    for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        assert_int_equal(route_of(paths[i]), 0);
    assert_int_equal(route_of("/admin%2fx"), 1); /* an encoded slash separates nothing */
    assert_int_equal(route_of("/Admin/x"), 1);
    assert_int_equal(route_of("/admin/../x"), 1);
}

static void malformed_escapes_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/*"};
    add_routes(patterns, 1);
    assert_int_equal(route_of("/%"), -400);
    assert_int_equal(route_of("/%4"), -400);
    assert_int_equal(route_of("/%zz"), -400);
    assert_int_equal(route_of("/a%00b"), -400);
}

static void methods_are_told_apart(void **state)
{
    (void)state;
    static const char *const patterns[] = {"GET /a", "POST /a", "/b", "PUT /b", "GET /c/:x", "/*"};
    add_routes(patterns, 5);
    assert_int_equal(ask("GET", "h", "/a")->status, 200);
    assert_int_equal(ask("HEAD", "h", "/a")->status, 200);
    assert_int_equal(ask("POST", "h", "/a")->status, 201);
    assert_int_equal(ask("PUT", "h", "/b")->status, 203);
    assert_int_equal(ask("PATCH", "h", "/b")->status, 202);

    struct response *response = ask("DELETE", "h", "/a");
    assert_int_equal(response->status, 405);
    struct slice allow = headers_get(&response->headers, SLICE("allow"));
    assert_non_null(memmem(allow.ptr, allow.len, "GET", 3));
    assert_non_null(memmem(allow.ptr, allow.len, "HEAD", 4));
    assert_non_null(memmem(allow.ptr, allow.len, "POST", 4));
    assert_int_equal(ask("GET", "h", "/nowhere")->status, 404);
}

static void hosts_are_told_apart(void **state)
{
    (void)state;
    static const char *const patterns[] = {"a.example/x", "*.example/x", "*.b.example/x", "/x"};
    add_routes(patterns, 4);
    assert_int_equal(ask("GET", "a.example", "/x")->status, 200);
    assert_int_equal(ask("GET", "A.EXAMPLE:8080", "/x")->status, 200);
    assert_int_equal(ask("GET", "a.example.", "/x")->status, 200);
    assert_int_equal(ask("GET", "c.example", "/x")->status, 201);
    assert_int_equal(ask("GET", "c.d.example", "/x")->status, 201);
    assert_int_equal(ask("GET", "c.b.example", "/x")->status, 202);
    assert_int_equal(ask("GET", "example", "/x")->status, 203);
    assert_int_equal(ask("GET", "[::1]:80", "/x")->status, 203);
    assert_int_equal(ask("GET", "", "/x")->status, 203);
}

/* --- Building --------------------------------------------------------------------------------- */

static void impossible_patterns_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "", "nonsense", "GET", "/a/*/b", "/a/:", "/a/:x/:x", "/a b",
    };
    for (unsigned i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        const char *error = NULL;
        if (router_add(router, patterns[i], chain_of(0), &error) >= 0)
            fail_msg("\"%s\" was accepted", patterns[i]);
        assert_non_null(error);
    }
}

static void a_route_can_be_added_once(void **state)
{
    (void)state;
    const char *error = NULL;
    assert_int_equal(router_add(router, "GET /a/:b", chain_of(0), &error), 0);
    assert_int_equal(router_add(router, "GET /a/:c", chain_of(1), &error), -EEXIST);
    assert_non_null(strstr(error, "/a/:c"));
    assert_int_equal(router_add(router, "POST /a/:c", chain_of(1), &error), 0);
}

static void ten_thousand_routes_are_no_trouble(void **state)
{
    (void)state;
    enum { MANY = 10000 };
    char pattern[64];
    const char *error = NULL;
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(pattern, sizeof(pattern), "/api/v%u/things%u/:id", i % 10, i);
        if (router_add(router, pattern, chain_of(i % ROUTES_MAX), &error) != 0)
            fail_msg("%s", error);
    }
    assert_int_equal(router_count(router), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(pattern, sizeof(pattern), "/api/v%u/things%u/7", i % 10, i);
        assert_int_equal(route_of(pattern), i % ROUTES_MAX);
    }
    assert_int_equal(route_of("/api/v1/things0/7"), -404);
}

static void long_and_deep_paths_are_no_trouble(void **state)
{
    (void)state;
    static char path[60000];
    static const char *const patterns[] = {"/:a/:b/:c/*", "/*"};
    add_routes(patterns, 2);
    for (size_t i = 0; i < sizeof(path) - 1; i++)
        path[i] = i % 2 ? 'x' : '/';
    assert_int_equal(route_of(path), -414);
    memset(path + 1, 'x', sizeof(path) - 2);
    assert_int_equal(route_of(path), 1);
}

/* A path that no route can be compared with must not reach what stands behind the router. */
static void paths_with_too_many_segments_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/admin/*"};
    char deep[4 * ROUTE_SEGMENTS_MAX + 64];
    char *out = stpcpy(deep, "/admin");
    add_routes(patterns, 1);
    for (unsigned i = 1; i < ROUTE_SEGMENTS_MAX; i++)
        out = stpcpy(out, "/x");
    assert_int_equal(route_of(deep), 0);
    stpcpy(out, "/x");
    assert_int_equal(route_of(deep), -414);
    stpcpy(out, "/"); /* a final slash counts as one */
    assert_int_equal(route_of(deep), -414);
    stpcpy(out, "/%zz");
    assert_true(route_of(deep) == -414 || route_of(deep) == -400);
}

static void allow_names_each_method_once(void **state)
{
    (void)state;
    static const char *const patterns[] = {"PUT-ALL /a/:x", "PUT /a/b",    "HEAD /a/b",
                                           "GET /a/:x",     "DELETE /a/*", "GET /a/b"};
    add_routes(patterns, 6);
    struct response *response = ask("POST", "h", "/a/b");
    assert_int_equal(response->status, 405);
    struct slice allow = headers_get(&response->headers, SLICE("Allow"));
    static const char *const methods[] = {"PUT-ALL", "PUT", "HEAD", "GET", "DELETE"};
    unsigned commas = 0;
    for (size_t i = 0; i < allow.len; i++)
        commas += allow.ptr[i] == ',';
    assert_int_equal(commas, 4);
    headers_init(&request.headers, &arena);
    headers_add(&request.headers, SLICE("Connection"), allow); /* a list, to look for tokens in */
    for (unsigned i = 0; i < 5; i++)
        assert_true(
            headers_has_token(&request.headers, HEADER_CONNECTION, slice_from_cstr(methods[i])));
}

/* A match by another method is no answer where a less specific route serves this one. */
static void methods_fall_through_to_less_specific_routes(void **state)
{
    (void)state;
    static const char *const patterns[] = {"GET /a/b", "POST /a/:x", "/a/*", "GET /c/d",
                                           "PUT /c/*"};
    add_routes(patterns, 5);
    assert_int_equal(ask("GET", "h", "/a/b")->status, 200);
    assert_int_equal(ask("POST", "h", "/a/b")->status, 201);
    assert_string_equal(param("x"), "b");
    assert_int_equal(ask("PUT", "h", "/a/b")->status, 202);
    assert_string_equal(param("*"), "b");
    assert_null(param("x"));
    assert_int_equal(ask("PUT", "h", "/c/d")->status, 204);
    assert_int_equal(ask("POST", "h", "/c/d")->status, 405);
    assert_int_equal(ask("POST", "h", "/e")->status, 404);
    assert_int_equal(ask("get", "h", "/c/d")->status, 405); /* methods are case-sensitive */
}

static void what_matched_is_forgotten_on_the_way_back(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/:a/:b/:c/x", "/:d/*rest"};
    add_routes(patterns, 2);
    assert_int_equal(route_of("/1/2/3/x"), 0);
    assert_int_equal(request.param_count, 3);
    assert_null(request.path_rest.ptr);
    assert_int_equal(route_of("/1/2/3/y"), 1);
    assert_int_equal(request.param_count, 2);
    assert_string_equal(param("d"), "1");
    assert_string_equal(param("rest"), "2/3/y");
    assert_int_equal(route_of("/1/"), 1);
    assert_string_equal(param("rest"), "");
    assert_non_null(request.path_rest.ptr);
    assert_int_equal(route_of("/1/a/b/../%63/"), 1);
    assert_string_equal(param("rest"), "a/c/");
}

static void as_many_parameters_as_fit_are_filled(void **state)
{
    (void)state;
    char pattern[200];
    char path[200];
    const char *error = NULL;
    char *pattern_end = pattern;
    char *path_end = path;
    for (unsigned i = 0; i < REQUEST_PARAMS_MAX - 1; i++) {
        pattern_end += sprintf(pattern_end, "/:p%u", i);
        path_end += sprintf(path_end, "/v%u", i);
    }
    stpcpy(pattern_end, "/*");
    stpcpy(path_end, "/a/b");
    assert_int_equal(router_add(router, pattern, chain_of(0), &error), 0);
    assert_int_equal(route_of(path), 0);
    assert_int_equal(request.param_count, REQUEST_PARAMS_MAX);
    assert_string_equal(param("p14"), "v14");
    assert_string_equal(param("*"), "a/b");
    stpcpy(pattern_end, "/:one/*more");
    assert_int_equal(router_add(router, pattern, chain_of(1), &error), -EINVAL);
}

/* An escape makes a literal of what would be syntax. */
static void escapes_in_patterns_are_literal(void **state)
{
    (void)state;
    static const char *const patterns[] = {"/%2a", "/%3Aname", "/a%20b", "/caf%C3%A9"};
    add_routes(patterns, 4);
    assert_int_equal(route_of("/*"), 0);
    assert_int_equal(route_of("/x"), -404);
    assert_int_equal(route_of("/:name"), 1);
    assert_int_equal(route_of("/a%20b"), 2);
    assert_int_equal(route_of("/caf%c3%a9"), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_most_specific_route_wins),
        TEST(what_matched_is_captured_decoded),
        TEST(no_spelling_of_a_path_slips_past_a_route),
        TEST(malformed_escapes_are_refused),
        TEST(methods_are_told_apart),
        TEST(hosts_are_told_apart),
        TEST(impossible_patterns_are_refused),
        TEST(a_route_can_be_added_once),
        TEST(ten_thousand_routes_are_no_trouble),
        TEST(long_and_deep_paths_are_no_trouble),
        TEST(paths_with_too_many_segments_are_refused),
        TEST(allow_names_each_method_once),
        TEST(methods_fall_through_to_less_specific_routes),
        TEST(what_matched_is_forgotten_on_the_way_back),
        TEST(as_many_parameters_as_fit_are_filled),
        TEST(escapes_in_patterns_are_literal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
