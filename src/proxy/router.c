#include "proxy/router.h"

#include <errno.h>
#include <string.h>

#include "proxy/route_path.h"

/* One route, at the node of its path. */
struct route {
    struct route *next;  /* at the same node */
    struct slice method; /* len 0: any */
    const char *pattern; /* as written */
    const struct chain *chain;
    struct slice params[REQUEST_PARAMS_MAX]; /* names, in the order of the path */
    unsigned param_count;
};

/* One segment of a path. Literal children are sorted, so that a search costs their logarithm. */
struct node {
    struct slice segment;
    struct node **children;
    unsigned child_count;
    unsigned child_capacity;
    struct node *param;   /* ":name", or NULL */
    struct route *routes; /* that end here */
    struct route *rest;   /* that end here with "*" */
};

struct host {
    struct slice name; /* lower case; "" for none; ".example.com" for a wildcard */
    struct node root;
};

struct router {
    struct arena *arena;
    struct host **exact; /* sorted by name */
    unsigned exact_count;
    unsigned exact_capacity;
    struct host **wildcards; /* longest first */
    unsigned wildcard_count;
    unsigned wildcard_capacity;
    struct host any;
    struct route **routes; /* in the order of addition */
    unsigned route_count;
    unsigned route_capacity;
};

/* --- Building --------------------------------------------------------------------------------- */

static int compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Makes room for one more pointer in an array of the arena. */
static void **grown(struct arena *arena, void **items, unsigned count, unsigned *capacity)
{
    if (count < *capacity)
        return items;
    unsigned larger = *capacity ? *capacity * 2 : 4;
    void **copy = arena_alloc(arena, larger * sizeof(*copy));
    if (!copy)
        return NULL;
    if (count)
        memcpy(copy, items, count * sizeof(*copy));
    *capacity = larger;
    return copy;
}

struct router *router_create(struct arena *arena)
{
    struct router *router = arena_zalloc(arena, sizeof(*router));
    if (router)
        router->arena = arena;
    return router;
}

/* Index of the first child that is not before `segment`. */
static unsigned child_place(const struct node *node, struct slice segment)
{
    unsigned low = 0;
    unsigned high = node->child_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (compare(node->children[middle]->segment, segment) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct node *find_child(const struct node *node, struct slice segment)
{
    unsigned place = child_place(node, segment);
    if (place < node->child_count && slice_equal(node->children[place]->segment, segment))
        return node->children[place];
    return NULL;
}

static struct node *make_child(struct router *router, struct node *node, struct slice segment)
{
    struct node *child = find_child(node, segment);
    if (child)
        return child;
    child = arena_zalloc(router->arena, sizeof(*child));
    void **children =
        grown(router->arena, (void **)node->children, node->child_count, &node->child_capacity);
    if (!child || !children)
        return NULL;
    child->segment = segment;
    node->children = (struct node **)children;
    unsigned place = child_place(node, segment);
    memmove(&node->children[place + 1], &node->children[place],
            (node->child_count - place) * sizeof(*node->children));
    node->children[place] = child;
    node->child_count++;
    return child;
}

static struct node *make_param(struct router *router, struct node *node)
{
    if (!node->param)
        node->param = arena_zalloc(router->arena, sizeof(*node->param));
    return node->param;
}

static struct host *new_host(struct router *router, struct slice name)
{
    struct host *host = arena_zalloc(router->arena, sizeof(*host));
    if (host)
        host->name = name;
    return host;
}

static struct host *make_exact(struct router *router, struct slice name)
{
    unsigned place = 0;
    while (place < router->exact_count && compare(router->exact[place]->name, name) < 0)
        place++;
    if (place < router->exact_count && slice_equal(router->exact[place]->name, name))
        return router->exact[place];
    struct host *host = new_host(router, name);
    void **hosts =
        grown(router->arena, (void **)router->exact, router->exact_count, &router->exact_capacity);
    if (!host || !hosts)
        return NULL;
    router->exact = (struct host **)hosts;
    memmove(&router->exact[place + 1], &router->exact[place],
            (router->exact_count++ - place) * sizeof(*router->exact));
    return router->exact[place] = host;
}

static struct host *make_wildcard(struct router *router, struct slice suffix)
{
    unsigned place = 0;
    for (unsigned i = 0; i < router->wildcard_count; i++) {
        if (slice_equal(router->wildcards[i]->name, suffix))
            return router->wildcards[i];
        place += router->wildcards[i]->name.len >= suffix.len;
    }
    struct host *host = new_host(router, suffix);
    void **hosts = grown(router->arena, (void **)router->wildcards, router->wildcard_count,
                         &router->wildcard_capacity);
    if (!host || !hosts)
        return NULL;
    router->wildcards = (struct host **)hosts;
    memmove(&router->wildcards[place + 1], &router->wildcards[place],
            (router->wildcard_count++ - place) * sizeof(*router->wildcards));
    return router->wildcards[place] = host;
}

static struct host *make_host(struct router *router, struct slice name)
{
    if (!name.len)
        return &router->any;
    if (name.ptr[0] == '*')
        return make_wildcard(router, slice_of(name.ptr + 1, name.len - 1));
    return make_exact(router, name);
}

/* A pattern taken apart. */
struct parsed {
    struct slice method;
    struct slice host; /* lower case */
    struct slice path;
};

static bool method_valid(struct slice method)
{
    for (size_t i = 0; i < method.len; i++)
        if (!((method.ptr[i] >= 'A' && method.ptr[i] <= 'Z') || method.ptr[i] == '-'))
            return false;
    return method.len > 0;
}

static bool host_valid(struct slice host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.ptr[i];
        bool wildcard = c == '*' && i == 0 && host.len > 2 && host.ptr[1] == '.';
        bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                      c == '_' || c == '[' || c == ']' || c == ':';
        if (!letter && !wildcard)
            return false;
    }
    return true;
}

static struct slice lower_copy(struct arena *arena, struct slice text)
{
    struct slice copy = arena_copy(arena, text);
    for (size_t i = 0; copy.ptr && i < copy.len; i++)
        ((char *)copy.ptr)[i] = ascii_lower(copy.ptr[i]);
    return copy;
}

static const char *parse(struct arena *arena, struct slice text, struct parsed *parsed)
{
    *parsed = (struct parsed){0};
    const char *space = memchr(text.ptr, ' ', text.len);
    if (space) {
        parsed->method = slice_of(text.ptr, (size_t)(space - text.ptr));
        if (!method_valid(parsed->method))
            return "the method must be written in capitals, like GET";
        text = slice_trim(slice_of(space, text.len - parsed->method.len));
    }
    const char *slash = memchr(text.ptr, '/', text.len);
    if (!slash)
        return "there is no path: a pattern is [METHOD ][host]/path";
    parsed->host = lower_copy(arena, slice_of(text.ptr, (size_t)(slash - text.ptr)));
    if (!parsed->host.ptr)
        return "out of memory";
    if (!host_valid(parsed->host))
        return "the host must be a name, or \"*.\" and a name";
    parsed->path = slice_of(slash, text.len - parsed->host.len);
    if (memchr(parsed->path.ptr, ' ', parsed->path.len))
        return "a path has no spaces";
    return NULL;
}

static bool identifier(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = ascii_lower(name.ptr[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'))
            return false;
    }
    return name.len > 0;
}

static const char *add_param(struct route *route, struct slice name)
{
    if (route->param_count == REQUEST_PARAMS_MAX)
        return "too many parameters (16 at most)";
    for (unsigned i = 0; i < route->param_count; i++)
        if (slice_equal(route->params[i], name))
            return "two parameters have the same name";
    route->params[route->param_count++] = name;
    return NULL;
}

/* Where a path's route belongs. */
struct place {
    struct node *node;
    bool rest; /* the path ends in "*" */
};

static const char *literal_step(struct router *router, struct slice segment, struct place *place)
{
    place->node = make_child(router, place->node, segment);
    return place->node ? NULL : "out of memory";
}

static const char *step(struct router *router, struct route *route, struct slice segment, bool last,
                        struct place *place)
{
    struct slice name = slice_of(segment.ptr + 1, segment.len ? segment.len - 1 : 0);
    if (segment.len && segment.ptr[0] == '*') {
        if (!last)
            return "\"*\" must be the last segment";
        if (name.len && !identifier(name))
            return "the name behind \"*\" must be letters, digits and underscores";
        place->rest = true;
        return add_param(route, name.len ? name : segment);
    }
    if (segment.len && segment.ptr[0] == ':') {
        if (!identifier(name))
            return "\":\" must be followed by a name of letters, digits and underscores";
        place->node = make_param(router, place->node);
        return place->node ? add_param(route, name) : "out of memory";
    }
    if (memchr(segment.ptr, '*', segment.len))
        return "\"*\" must be a segment of its own";
    return literal_step(router, segment, place);
}

/* Does the segment lie in the path itself? One with escapes was decoded elsewhere. */
static bool as_written(struct slice segment, struct slice path)
{
    uintptr_t at = (uintptr_t)segment.ptr;
    return at >= (uintptr_t)path.ptr && at < (uintptr_t)path.ptr + path.len;
}

/* Walks the pattern's path, in the same normal form as requests' paths. What an escape makes is
 * never syntax. */
static const char *walk(struct router *router, struct route *route, struct slice path,
                        struct place *place)
{
    struct route_path *split = arena_alloc(router->arena, sizeof(*split));
    if (!split)
        return "out of memory";
    int result = route_path_split(split, path, router->arena);
    if (result < 0)
        return result == -E2BIG ? "too many segments" : "a malformed % escape";
    for (unsigned i = 0; i < split->count; i++) {
        struct slice segment = split->segments[i];
        const char *why = as_written(segment, path)
                              ? step(router, route, segment, i + 1 == split->count, place)
                              : literal_step(router, segment, place);
        if (why)
            return why;
    }
    return NULL;
}

static int refuse(struct router *router, const char *pattern, const char *why, int code,
                  const char **error)
{
    struct slice text = arena_printf(router->arena, "route \"%s\": %s", pattern, why);
    *error = text.ptr ? text.ptr : "out of memory";
    return code;
}

static int insert(struct router *router, struct route *route, const struct place *place,
                  const char **error)
{
    struct route **head = place->rest ? &place->node->rest : &place->node->routes;
    struct route **at = head;
    for (; *at; at = &(*at)->next) {
        if (!slice_equal((*at)->method, route->method))
            continue;
        struct slice why = arena_printf(router->arena, "the same as \"%s\"", (*at)->pattern);
        return refuse(router, route->pattern, why.ptr ? why.ptr : "a duplicate", -EEXIST, error);
    }
    void **routes =
        grown(router->arena, (void **)router->routes, router->route_count, &router->route_capacity);
    if (!routes)
        return refuse(router, route->pattern, "out of memory", -ENOMEM, error);
    router->routes = (struct route **)routes;
    router->routes[router->route_count++] = route;
    *at = route;
    return 0;
}

int router_add(struct router *router, const char *pattern, const struct chain *chain,
               const char **error)
{
    struct slice text = arena_copy(router->arena, slice_from_cstr(pattern));
    struct route *route = arena_zalloc(router->arena, sizeof(*route));
    if (!text.ptr || !route)
        return refuse(router, pattern, "out of memory", -ENOMEM, error);
    struct parsed parsed;
    const char *why = parse(router->arena, text, &parsed);
    if (why)
        return refuse(router, pattern, why, -EINVAL, error);
    struct host *host = make_host(router, parsed.host);
    if (!host)
        return refuse(router, pattern, "out of memory", -ENOMEM, error);
    route->method = parsed.method;
    route->pattern = text.ptr;
    route->chain = chain;
    struct place place = {.node = &host->root};
    why = walk(router, route, parsed.path, &place);
    if (why)
        return refuse(router, pattern, why, -EINVAL, error);
    return insert(router, route, &place, error);
}

size_t router_count(const struct router *router)
{
    return router->route_count;
}

const char *router_pattern(const struct router *router, size_t index)
{
    return router->routes[index]->pattern;
}

const struct chain *router_chain(const struct router *router, size_t index)
{
    return router->routes[index]->chain;
}

/* --- Matching --------------------------------------------------------------------------------- */

/* One search: on the stack of the layer. */
struct search {
    struct request *request;
    const struct route_path *path;
    unsigned taken[REQUEST_PARAMS_MAX]; /* segment index of each parameter so far */
    unsigned taken_count;
    const struct route *found;
    bool found_rest;
    unsigned rest_from; /* first segment of what "*" matched */
    struct slice allow; /* methods of routes that match but for the method */
};

static bool serves(struct slice route_method, struct slice method)
{
    return slice_equal(route_method, method) ||
           (slice_equal(method, SLICE("HEAD")) && slice_equal(route_method, SLICE("GET")));
}

static bool lists(struct slice list, struct slice method)
{
    for (size_t at = 0, len; at < list.len; at += len + 2) {
        const char *comma = memchr(list.ptr + at, ',', list.len - at);
        len = comma ? (size_t)(comma - list.ptr) - at : list.len - at;
        if (slice_equal(slice_of(list.ptr + at, len), method))
            return true;
    }
    return false;
}

static void allow(struct search *search, struct slice method)
{
    struct slice so_far = search->allow;
    if (lists(so_far, method))
        return;
    search->allow = arena_printf(search->request->arena, "%.*s%s%.*s", (int)so_far.len,
                                 so_far.ptr ? so_far.ptr : "", so_far.len ? ", " : "",
                                 (int)method.len, method.ptr);
    if (slice_equal(method, SLICE("GET")))
        allow(search, SLICE("HEAD"));
}

/* Chooses among the routes of one place: the request's method, HEAD's GET, then any. */
static bool choose(struct search *search, const struct route *routes, bool rest, unsigned from)
{
    const struct route *best = NULL;
    struct slice method = search->request->method_name;
    for (const struct route *route = routes; route; route = route->next) {
        if (slice_equal(route->method, method)) {
            best = route;
            break;
        }
        if (serves(route->method, method) || (!route->method.len && !best))
            best = route;
    }
    if (!best) {
        for (const struct route *route = routes; route; route = route->next)
            allow(search, route->method);
        return false;
    }
    search->found = best;
    search->found_rest = rest;
    search->rest_from = from;
    return true;
}

static bool match(struct search *search, const struct node *node, unsigned index);

static bool match_param(struct search *search, const struct node *node, unsigned index)
{
    if (!node->param || !search->path->segments[index].len)
        return false;
    search->taken[search->taken_count++] = index;
    if (match(search, node->param, index + 1))
        return true;
    search->taken_count--;
    return false;
}

/* Depth is bounded by the depth of the patterns. */
static bool match(struct search *search, const struct node *node, unsigned index)
{
    if (index == search->path->count) {
        if (node->routes && choose(search, node->routes, false, index))
            return true;
    } else {
        struct slice segment = search->path->segments[index];
        const struct node *child = find_child(node, segment);
        if (child && match(search, child, index + 1))
            return true;
        if (match_param(search, node, index))
            return true;
    }
    // "/a/*" matches "/a/" and what is below, not "/a"
    return node->rest && index < search->path->count && choose(search, node->rest, true, index);
}

static bool match_hosts(struct search *search, const struct router *router, struct slice name)
{
    unsigned low = 0;
    unsigned high = router->exact_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = compare(router->exact[middle]->name, name);
        if (order == 0) {
            if (match(search, &router->exact[middle]->root, 0))
                return true;
            break;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (unsigned i = 0; i < router->wildcard_count; i++) {
        struct slice suffix = router->wildcards[i]->name;
        if (name.len > suffix.len &&
            memcmp(name.ptr + name.len - suffix.len, suffix.ptr, suffix.len) == 0 &&
            match(search, &router->wildcards[i]->root, 0))
            return true;
    }
    return match(search, &router->any.root, 0);
}

/* The host of an authority: without port and final dot, in lower case. */
static struct slice host_name(struct request *request)
{
    struct slice name = request->authority;
    const char *bracket = name.len ? memrchr(name.ptr, ']', name.len) : NULL;
    const char *colon = name.len ? memrchr(name.ptr, ':', name.len) : NULL;
    if (colon && (!bracket || colon > bracket))
        name.len = (size_t)(colon - name.ptr);
    if (name.len && name.ptr[name.len - 1] == '.')
        name.len--;
    return lower_copy(request->arena, name);
}

static int fill_params(const struct search *search)
{
    struct request *request = search->request;
    const struct route *route = search->found;
    unsigned count = 0;
    request->path_rest = (struct slice){NULL, 0};
    for (; count < search->taken_count; count++)
        request->params[count] =
            (struct param){route->params[count], search->path->segments[search->taken[count]]};
    if (search->found_rest) {
        struct slice rest = route_path_rest(search->path, search->rest_from, request->arena);
        if (!rest.ptr)
            return -ENOMEM;
        request->params[count] = (struct param){route->params[count], rest};
        request->path_rest = rest;
        count++;
    }
    request->param_count = count;
    return 0;
}

static struct response *method_not_allowed(struct search *search)
{
    struct response *response =
        response_create_text(search->request, 405, SLICE("Method Not Allowed\n"));
    if (response && headers_set(&response->headers, SLICE("Allow"), search->allow) != 0)
        return NULL;
    return response;
}

static struct response *handle(void *self, struct request *request, struct ml_next *next)
{
    const struct router *router = self;
    struct route_path path;
    int result = route_path_split(&path, request->path, request->arena);
    if (result == -EINVAL && request->path.len && request->path.ptr[0] == '/')
        return response_create_text(request, 400, SLICE("malformed escape in the path\n"));
    if (result == -E2BIG) /* no route can be compared with it, so nothing may come behind either */
        return response_create_text(request, 414, SLICE("too many segments in the path\n"));
    if (result == -ENOMEM)
        return NULL;
    struct search search = {.request = request, .path = &path};
    struct slice name = {"", 0};
    if (router->exact_count || router->wildcard_count)
        name = host_name(request);
    if (result < 0 || !name.ptr || !match_hosts(&search, router, name))
        return search.allow.len ? method_not_allowed(&search) : ml_next_call(next, request);
    if (fill_params(&search) != 0)
        return NULL;
    return chain_run_then(search.found->chain, request, next);
}

const ml_layer router_layer = {.abi = ML_ABI, .name = "router", .handle = handle};
