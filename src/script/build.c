#include "script/build.h"

#include "l4/conn.h"
#include "net/address.h"
#include "proxy/site.h"
#include "proxy/upstream.h"
#include "script/cidr.h"
#include "script/layer.h"
#include "script/options.h"
#include "script/tls.h"
#include "thrift/server.h"

#include <stdlib.h>
#include <string.h>

enum { LIST_MIN = 8 };

struct site *build_site(lua_State *L)
{
    struct site *site = script_of(L)->site;
    if (!site)
        luaL_error(L, "listeners, upstreams and chains can be made only while a site is loaded");
    return site;
}

void *build_alloc(lua_State *L, size_t size)
{
    void *memory = arena_zalloc(&build_site(L)->arena, size);
    if (!memory)
        luaL_error(L, "out of memory");
    return memory;
}

const char *build_text(lua_State *L, int index)
{
    size_t len;
    const char *text = lua_tolstring(L, index, &len);
    if (!text)
        return NULL;
    struct slice copy = arena_copy(&build_site(L)->arena, slice_of(text, len));
    if (!copy.ptr)
        luaL_error(L, "out of memory");
    return copy.ptr;
}

static void destroy_step(void *arg)
{
    struct chain_step *step = arg;
    step->layer->destroy(step->self);
}

struct chain_step *build_step(lua_State *L, const ml_layer *layer, void *self, int label_index)
{
    struct chain_step *step = build_alloc(L, sizeof(*step));
    step->layer = layer;
    step->self = self;
    step->label = build_text(L, label_index);
    if (layer->destroy && arena_defer(&build_site(L)->arena, destroy_step, step) != 0)
        luaL_error(L, "out of memory");
    lua_pushlightuserdata(L, step);
    return step;
}

/* Appends to an array in the site's arena that grows by doubling. */
static void append(lua_State *L, void ***items, unsigned *count, void *item)
{
    unsigned used = *count;
    if (used == 0 || (used >= LIST_MIN && (used & (used - 1)) == 0)) {
        void **grown = build_alloc(L, sizeof(*grown) * (used ? used * 2 : LIST_MIN));
        if (used)
            memcpy(grown, *items, sizeof(*grown) * used);
        *items = grown;
    }
    (*items)[(*count)++] = item;
}

/* core.add_file(path, text): it is about to be run. */
static int add_file(lua_State *L)
{
    const struct script *script = script_of(L);
    struct script_source file = {.path = luaL_checkstring(L, 1)};
    file.text = luaL_checklstring(L, 2, &file.len);
    if (script->on_file)
        script->on_file(script->on_file_arg, &file);
    return 0;
}

/* core.source(path): the text that is to be taken instead of the file, or nil. */
static int source(lua_State *L)
{
    const struct script *script = script_of(L);
    const char *path = luaL_checkstring(L, 1);
    if (!script || script->sources == LUA_NOREF)
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, script->sources);
    lua_getfield(L, -1, path);
    return 1;
}

/* core.lua_step(function, recover, label, of_connections); see lua/monolake/internal/compose.lua */
static int lua_step(lua_State *L)
{
    struct lua_run *run = build_alloc(L, sizeof(*run));
    run->script = script_of(L);
    run->of_connections = lua_toboolean(L, 4);
    lua_pushvalue(L, 1);
    run->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, 2);
    run->recover_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    build_step(L, &lua_layer, run, 3);
    return 1;
}

static struct slice text_slice(lua_State *L, int index)
{
    size_t len;
    lua_tolstring(L, index, &len);
    return slice_of(build_text(L, index), len);
}

/* core.fixed_step(status, { name, value, ... }, body, label) */
static int fixed_step(lua_State *L)
{
    struct fixed_response *fixed = build_alloc(L, sizeof(*fixed));
    fixed->status = (uint16_t)lua_tointeger(L, 1);
    headers_init(&fixed->headers, &build_site(L)->arena);
    int count = (int)lua_objlen(L, 2);
    for (int i = 1; i < count; i += 2) {
        lua_rawgeti(L, 2, i);
        lua_rawgeti(L, 2, i + 1);
        struct slice name = text_slice(L, -2);
        struct slice value = text_slice(L, -1);
        if (!header_name_valid(name) || !header_value_valid(value))
            return luaL_error(L, "\"%s: %s\" is not a valid field", name.ptr, value.ptr);
        if (headers_add(&fixed->headers, name, value) != 0)
            return luaL_error(L, "out of memory");
        lua_pop(L, 2);
    }
    fixed->body = text_slice(L, 3);
    build_step(L, &fixed_layer, fixed, 4);
    return 1;
}

/* core.chain({ step, ... }) */
static int chain(lua_State *L)
{
    struct chain *chain = build_alloc(L, sizeof(*chain));
    chain->count = lua_objlen(L, 1);
    chain->steps = build_alloc(L, sizeof(*chain->steps) * (chain->count + 1));
    for (size_t i = 0; i < chain->count; i++) {
        lua_rawgeti(L, 1, (int)i + 1);
        chain->steps[i] = *(struct chain_step *)lua_touserdata(L, -1);
        lua_pop(L, 1);
    }
    lua_pushlightuserdata(L, chain);
    return 1;
}

/* What serves the connections of a listener. */
static void set_protocol(struct listener_config *config, const char *kind)
{
    if (kind && strcmp(kind, "thrift") == 0)
        config->start = thrift_connection_start;
    else if (kind)
        l4_listener_config(config);
}

/* core.listener({ address, ... }, options, chain, where, tls server or nil, on_client_hello or nil,
 * "l4", "thrift" or nil, proxy_accept or nil) */
static int listener(lua_State *L)
{
    struct site *site = build_site(L);
    struct site_listener *listener = build_alloc(L, sizeof(*listener));
    listener->address_count = (unsigned)lua_objlen(L, 1);
    listener->addresses = build_alloc(L, sizeof(char *) * listener->address_count);
    for (unsigned i = 0; i < listener->address_count; i++) {
        lua_rawgeti(L, 1, (int)i + 1);
        listener->addresses[i] = build_text(L, -1);
        lua_pop(L, 1);
    }
    listener_config_init(&listener->config);
    options_read(&listener_options, L, 2, &listener->config);
    listener->chain = *(struct chain *)lua_touserdata(L, 3);
    listener->where = build_text(L, 4);
    listener->config.tls = lua_touserdata(L, 5);
    lua_getfield(L, 2, "allow");
    listener->config.allow = script_cidr_sets(L, lua_gettop(L));
    lua_getfield(L, 2, "deny");
    listener->config.deny = script_cidr_sets(L, lua_gettop(L));
    if (lua_isfunction(L, 6))
        listener->config.tls_hello = script_hello_hook(L, 6);
    set_protocol(&listener->config, lua_tostring(L, 7));
    listener->config.proxy = lua_touserdata(L, 8);
    append(L, (void ***)&site->listeners, &site->listener_count, listener);
    return 0;
}

/* --- Upstreams ------------------------------------------------------------------------------- */

static enum balance balance_of(const char *name)
{
    static const char *const names[] = {
        [BALANCE_ROUND_ROBIN] = "round_robin",
        [BALANCE_LEAST_CONN] = "least_conn",
        [BALANCE_RANDOM] = "random",
        [BALANCE_HASH] = "hash",
    };
    unsigned rule = 0;
    while (strcmp(names[rule], name) != 0)
        rule++; /* the name was checked */
    return (enum balance)rule;
}

static void read_peers(lua_State *L, int peers, int weights, struct upstream_config *config)
{
    config->peer_count = (unsigned)lua_objlen(L, peers);
    config->peers = build_alloc(L, sizeof(char *) * config->peer_count);
    config->weights = build_alloc(L, sizeof(unsigned) * config->peer_count);
    for (unsigned i = 0; i < config->peer_count; i++) {
        lua_rawgeti(L, peers, (int)i + 1);
        config->peers[i] = build_text(L, -1);
        lua_rawgeti(L, weights, (int)i + 1);
        config->weights[i] = (unsigned)lua_tointeger(L, -1);
        lua_pop(L, 2);
    }
}

/* options.idempotent: names of methods. */
static void read_idempotent(lua_State *L, int options, struct upstream_config *config)
{
    lua_getfield(L, options, "idempotent");
    if (lua_istable(L, -1)) {
        config->idempotent_count = (unsigned)lua_objlen(L, -1);
        config->idempotent = build_alloc(L, sizeof(char *) * (config->idempotent_count + 1));
        for (unsigned i = 0; i < config->idempotent_count; i++) {
            lua_rawgeti(L, -1, (int)i + 1);
            config->idempotent[i] = build_text(L, -1);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

static void release_upstream(void *arg)
{
    upstream_release(arg);
}

/* Opens it, or in the probe only checks it. */
static void open_upstream(lua_State *L, struct site_upstream *entry)
{
    struct script *script = script_of(L);
    struct arena *arena = &build_site(L)->arena;
    const char *error = NULL;
    if (script->probe || !script->io) {
        if (upstream_check(&entry->config, arena, &error) != 0)
            luaL_error(L, "upstream \"%s\": %s", entry->config.name, error);
        return;
    }
    entry->upstream = upstream_open(script->io, &entry->config, arena, &error);
    if (!entry->upstream)
        luaL_error(L, "upstream \"%s\": %s", entry->config.name, error);
    if (arena_defer(arena, release_upstream, entry->upstream) != 0)
        luaL_error(L, "out of memory");
}

/* { client =, name =, key =, insecure = } of an upstream with TLS; see
 * lua/monolake/internal/tls.lua. */
static void read_tls(lua_State *L, int index, struct upstream_config *config)
{
    if (!lua_istable(L, index))
        return;
    lua_getfield(L, index, "client");
    config->tls = lua_touserdata(L, -1);
    lua_getfield(L, index, "name");
    config->tls_name = build_text(L, -1);
    lua_getfield(L, index, "key");
    config->tls_key = build_text(L, -1);
    lua_getfield(L, index, "insecure");
    if (lua_toboolean(L, -1) && !script_of(L)->probe)
        log_warn("upstream \"%s\" is insecure: its peers' certificates are not verified",
                 config->name);
    lua_pop(L, 4);
}

/* core.upstream(name, peers, weights, balance, hash_header, options, where, tls or nil) */
static int upstream(lua_State *L)
{
    struct site *site = build_site(L);
    struct site_upstream *entry = build_alloc(L, sizeof(*entry));
    upstream_config_init(&entry->config);
    options_read(&upstream_options, L, 6, &entry->config);
    entry->config.name = build_text(L, 1);
    read_peers(L, 2, 3, &entry->config);
    entry->config.balance = balance_of(luaL_checkstring(L, 4));
    entry->config.hash_header = build_text(L, 5);
    entry->where = build_text(L, 7);
    read_tls(L, 8, &entry->config);
    read_idempotent(L, 6, &entry->config);
    open_upstream(L, entry);
    append(L, (void ***)&site->upstreams, &site->upstream_count, entry);
    lua_pushlightuserdata(L, entry);
    return 1;
}

/* core.proxy_step(upstream, label) */
static int proxy_step(lua_State *L)
{
    struct site_upstream *entry = lua_touserdata(L, 1);
    build_step(L, &upstream_layer, entry->upstream, 2);
    return 1;
}

/* --- Checks ---------------------------------------------------------------------------------- */

/* core.address_error(text, name_allowed): nil, or what is wrong with it. */
static int address_error(lua_State *L)
{
    size_t len;
    const char *bytes = luaL_checklstring(L, 1, &len);
    const char *why = NULL;
    struct slice host;
    uint16_t port;
    struct address address;
    if (address_parse(slice_of(bytes, len), &address, &why) == 0)
        return 0;
    if (lua_toboolean(L, 2) && address_split(slice_of(bytes, len), &host, &port, &why) == 0)
        return 0;
    lua_pushstring(L, why ? why : "not an address");
    return 1;
}

/* core.option_kinds(): { listener = { name = kind }, upstream = ... } */
static int option_kinds(lua_State *L)
{
    lua_newtable(L);
    options_push_kinds(&listener_options, L);
    lua_setfield(L, -2, "listener");
    options_push_kinds(&upstream_options, L);
    lua_setfield(L, -2, "upstream");
    return 1;
}

/* core.set_grace(milliseconds) */
static int set_grace(lua_State *L)
{
    build_site(L)->grace_ms = (uint32_t)luaL_checknumber(L, 1);
    return 0;
}

/* core.set_lua_memory_max(bytes) */
static int set_lua_memory_max(lua_State *L)
{
    build_site(L);
    memory_set_max(&script_of(L)->memory, (size_t)luaL_checknumber(L, 1));
    return 0;
}

const luaL_Reg build_functions[] = {
    {"add_file", add_file},
    {"lua_step", lua_step},
    {"fixed_step", fixed_step},
    {"native_step", build_native_step},
    {"proxy_step", proxy_step},
    {"chain", chain},
    {"listener", listener},
    {"upstream", upstream},
    {"address_error", address_error},
    {"option_kinds", option_kinds},
    {"source", source},
    {"set_grace", set_grace},
    {"set_lua_memory_max", set_lua_memory_max},
    {NULL, NULL},
};
