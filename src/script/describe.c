/* The summary tree of -t. */
#include "script/options.h"
#include "script/state.h"

#include "net/cidr.h"
#include "proxy/site.h"
#include "thrift/server.h"

#include <string.h>

enum { INDENT_MAX = 64 };

struct tree {
    struct arena *arena;
    char *text; /* grows by doubling: a site may have 10,000 routes */
    size_t len;
    size_t capacity;
};

static bool make_room(struct tree *tree, size_t more)
{
    size_t needed = tree->len + more + 1;
    if (needed <= tree->capacity)
        return true;
    char *larger = arena_alloc(tree->arena, needed * 2);
    if (!larger)
        return false;
    if (tree->len)
        memcpy(larger, tree->text, tree->len);
    tree->text = larger;
    tree->capacity = needed * 2;
    return true;
}

__attribute__((format(printf, 2, 3))) static void put(struct tree *tree, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct slice more = arena_vprintf(tree->arena, format, args);
    va_end(args);
    if (!more.ptr || !make_room(tree, more.len))
        return;
    memcpy(tree->text + tree->len, more.ptr, more.len + 1);
    tree->len += more.len;
}

static void put_chain(struct tree *tree, const struct chain *chain, const char *indent);

static void put_subs(struct tree *tree, const struct chain_step *step, const char *indent)
{
    for (unsigned i = 0; step->subs && step->subs[i]; i++) {
        put(tree, "%s  %s\n", indent, step->sub_labels[i]);
        struct slice deeper = arena_printf(tree->arena, "%s    ", indent);
        if (deeper.ptr && deeper.len < INDENT_MAX)
            put_chain(tree, step->subs[i], deeper.ptr);
    }
}

static void put_chain(struct tree *tree, const struct chain *chain, const char *indent)
{
    for (size_t i = 0; i < chain->count; i++) {
        const struct chain_step *step = &chain->steps[i];
        put(tree, "%s%s\n", indent, step->label ? step->label : step->layer->name);
        put_subs(tree, step, indent);
    }
}

/* Sets may be large: how many prefixes are left of each. */
static void put_sets(struct tree *tree, const char *name, const struct cidr_sets *sets)
{
    size_t count = 0;
    if (!sets)
        return;
    for (unsigned i = 0; i < sets->count; i++)
        count += cidr_set_count(sets->sets[i]);
    put(tree, "  %s: %zu prefix%s\n", name, count, count == 1 ? "" : "es");
}

static void put_listener(struct tree *tree, const struct site_listener *listener)
{
    put(tree, "listen");
    for (unsigned i = 0; i < listener->address_count; i++)
        put(tree, " %s", listener->addresses[i]);
    if (listener->config.start)
        put(tree, "%s", listener->config.start == thrift_connection_start ? " Thrift" : " layer 4");
    struct slice options = options_describe(&listener_options, &listener->config, tree->arena);
    put(tree, "%s%s%s   (%s)\n", options.len ? " {" : "", options.ptr, options.len ? "}" : "",
        listener->where);
    put_sets(tree, "allow", listener->config.allow);
    put_sets(tree, "deny", listener->config.deny);
    put_chain(tree, &listener->chain, "  ");
}

static void put_upstream(struct tree *tree, const struct site_upstream *upstream)
{
    static const char *const rules[] = {
        [BALANCE_ROUND_ROBIN] = "round_robin",
        [BALANCE_LEAST_CONN] = "least_conn",
        [BALANCE_RANDOM] = "random",
        [BALANCE_HASH] = "hash",
    };
    const struct upstream_config *config = &upstream->config;
    struct slice options = options_describe(&upstream_options, config, tree->arena);
    put(tree, "upstream %s %s%s%s%s   (%s)\n", config->name, rules[config->balance],
        options.len ? " {" : "", options.ptr, options.len ? "}" : "", upstream->where);
    for (unsigned i = 0; i < config->peer_count; i++) {
        put(tree, "  %s", config->peers[i]);
        if (config->weights && config->weights[i] != 1)
            put(tree, " weight %u", config->weights[i]);
        put(tree, "\n");
    }
}

struct slice site_describe(struct site *site, struct arena *arena)
{
    struct tree tree = {.arena = arena, .text = ""};
    for (unsigned i = 0; i < site->listener_count; i++)
        put_listener(&tree, site->listeners[i]);
    for (unsigned i = 0; i < site->upstream_count; i++)
        put_upstream(&tree, site->upstreams[i]);
    return slice_of(tree.text, tree.len);
}
