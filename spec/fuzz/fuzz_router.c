/* Routes: a line each, but the last line, which is "METHOD authority path". Whatever they are, a
 * route that is chosen fills as many parameters as its pattern names, and only a route of this
 * method or of any. */
#include "fuzz.h"

#include "http/exchange.h"
#include "proxy/chain.h"
#include "proxy/router.h"

#include <assert.h>
#include <string.h>

enum { ROUTES_MAX = 32 };

/* Number of parameters that a pattern names; -1 where normal form makes that hard to tell. */
static int count_named(const char *pattern)
{
    const char *path = strchr(pattern, '/');
    int count = 0;
    if (strstr(path, "/.") || strchr(path, '%'))
        return -1;
    for (const char *at = path; (at = strpbrk(at, ":*")); at++)
        count += at[-1] == '/';
    return count;
}

/* Answers 200, having looked at the request as the chosen route left it. */
static ml_response *look(void *self, ml_request *request, ml_next *next)
{
    const char *pattern = *(const char **)self;
    int named = count_named(pattern);
    (void)next;
    assert(named < 0 || request->param_count == (unsigned)named);
    const char *space = strchr(pattern, ' ');
    struct slice method = slice_of(pattern, space ? (size_t)(space - pattern) : 0);
    assert(!space || slice_equal(method, request->method_name) ||
           (request->method == METHOD_HEAD && slice_equal(method, SLICE("GET"))));
    return response_create(request, 200);
}

static const ml_layer looking = {.abi = ML_ABI, .name = "look", .handle = look};

static struct slice next_line(struct slice *text)
{
    const char *end = text->len ? memchr(text->ptr, '\n', text->len) : NULL;
    struct slice line = slice_of(text->ptr, end ? (size_t)(end - text->ptr) : text->len);
    size_t used = end ? line.len + 1 : line.len;
    *text = slice_of(text->ptr + used, text->len - used);
    return line;
}

static void ask(struct router *router, struct slice line, struct arena *arena)
{
    struct chain_step step = {.layer = &router_layer, .self = router};
    struct chain chain = {.steps = &step, .count = 1};
    struct request request = {.arena = arena};
    const char *first = memchr(line.ptr, ' ', line.len);
    const char *second =
        first ? memchr(first + 1, ' ', line.len - (size_t)(first + 1 - line.ptr)) : NULL;
    if (!second)
        return;
    headers_init(&request.headers, arena);
    request.method_name = slice_of(line.ptr, (size_t)(first - line.ptr));
    request.method = http_method_of(request.method_name);
    request.authority = slice_of(first + 1, (size_t)(second - first) - 1);
    request.path = slice_of(second + 1, line.len - (size_t)(second + 1 - line.ptr));
    struct response *response = chain_run(&chain, &request);
    assert(response);
    assert(response->status == 200 || response->status == 400 || response->status == 404 ||
           response->status == 405 || response->status == 414);
    assert((response->status == 405) == (headers_get(&response->headers, SLICE("Allow")).len > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chain_step steps[ROUTES_MAX];
    struct chain chains[ROUTES_MAX];
    const char *patterns[ROUTES_MAX];
    struct slice text = slice_of((const char *)data, size);
    struct slice line = {"", 0};
    struct arena arena;
    if (!size || size > 4096 || memchr(data, '\0', size))
        return 0;
    arena_init(&arena);
    struct router *router = router_create(&arena);
    for (unsigned i = 0; i < ROUTES_MAX && text.len; i++) {
        const char *error = NULL;
        line = next_line(&text);
        if (!text.len)
            break;
        patterns[i] = arena_copy(&arena, line).ptr;
        steps[i] = (struct chain_step){.layer = &looking, .self = &patterns[i]};
        chains[i] = (struct chain){.steps = &steps[i], .count = 1};
        assert(router_add(router, patterns[i], &chains[i], &error) == 0 || error);
    }
    ask(router, line, &arena);
    arena_fini(&arena);
    return 0;
}
