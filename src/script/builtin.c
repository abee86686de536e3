/* The built-in native layers as steps of chains. */
#include "script/build.h"

#include "l4/access_log.h"
#include "l4/detect_layer.h"
#include "l4/http_site.h"
#include "l4/tcp_proxy.h"
#include "proxy/access_log.h"
#include "proxy/connect.h"
#include "proxy/files.h"
#include "proxy/router.h"
#include "proxy/site.h"
#include "script/tls.h"
#include "script/options.h"

#include <string.h>

/* core.router_step({ pattern, chain, pattern, chain, ... }, label) */
static int router_step(lua_State *L)
{
    struct arena *arena = &build_site(L)->arena;
    struct router *router = router_create(arena);
    if (!router)
        return luaL_error(L, "out of memory");
    size_t count = lua_objlen(L, 1) / 2;
    const struct chain **subs = build_alloc(L, sizeof(*subs) * (count + 1));
    const char **labels = build_alloc(L, sizeof(*labels) * (count + 1));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 1, (int)i * 2 + 1);
        lua_rawgeti(L, 1, (int)i * 2 + 2);
        const char *error = NULL;
        labels[i] = build_text(L, -2);
        subs[i] = lua_touserdata(L, -1);
        if (router_add(router, labels[i], subs[i], &error) != 0)
            return luaL_error(L, "%s", error ? error : "out of memory");
        lua_pop(L, 2);
        memory_pause(&script_of(L)->memory);
    }
    struct chain_step *step = build_step(L, &router_layer, router, 2);
    step->subs = subs;
    step->sub_labels = labels;
    return 1;
}

/* core.access_log_step(format, path, label, in a chain of layer 4) */
static int access_log_step(lua_State *L)
{
    static const char *const formats[] = {[ACCESS_LOG_COMBINED] = "combined",
                                          [ACCESS_LOG_JSON] = "json",
                                          [ACCESS_LOG_TEXT] = "text",
                                          [ACCESS_LOG_TEXT + 1] = NULL};
    struct script *script = script_of(L);
    int format = luaL_checkoption(L, 1, NULL, formats);
    bool of_connections = lua_toboolean(L, 4);
    const char *error = NULL;
    struct access_log *log =
        access_log_create(&build_site(L)->arena, script->probe ? NULL : script->io,
                          (enum access_log_format)format, luaL_checkstring(L, 2), &error);
    if (!log)
        return luaL_error(L, "%s", error);
    build_step(L, of_connections ? &l4_access_log_layer : &access_log_layer, log, 3);
    return 1;
}

/* core.files_step(root, index, max_age_ms, label) */
static int files_step(lua_State *L)
{
    struct files_config config = {
        .root = luaL_checkstring(L, 1),
        .index = luaL_checkstring(L, 2),
        .max_age_ms = (int64_t)luaL_checknumber(L, 3),
    };
    const char *error = NULL;
    struct files *files = files_create(&build_site(L)->arena, &config, &error);
    if (!files)
        return luaL_error(L, "files: %s", error);
    build_step(L, &files_layer, files, 4);
    return 1;
}

/* core.connect_step({ "host:port", ... }, connect_timeout_ms, label) */
static int connect_step(lua_State *L)
{
    struct connect_config config = {
        .allow_count = (unsigned)lua_objlen(L, 1),
        .connect_timeout_ms = (uint32_t)luaL_checknumber(L, 2),
    };
    config.allow = build_alloc(L, (config.allow_count + 1) * sizeof(char *));
    for (unsigned i = 0; i < config.allow_count; i++) {
        lua_rawgeti(L, 1, (int)i + 1);
        config.allow[i] = build_text(L, -1);
        lua_pop(L, 1);
    }
    const char *error = NULL;
    struct connect *connect = connect_create(&build_site(L)->arena, &config, &error);
    if (!connect)
        return luaL_error(L, "tunnel: %s", error ? error : "out of memory");
    build_step(L, &connect_layer, connect, 3);
    return 1;
}

static uint32_t timeout_at(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? L4_TIMEOUT_UNSET : (uint32_t)luaL_checknumber(L, index);
}

/* core.tcp_proxy_step(upstream, label, idle_timeout_ms or nil, total_timeout_ms or nil) */
static int tcp_proxy_step(lua_State *L)
{
    const struct site_upstream *entry = lua_touserdata(L, 1);
    struct l4_proxy *proxy = build_alloc(L, sizeof(*proxy));
    proxy->upstream = entry->upstream;
    proxy->options = (struct l4_splice){timeout_at(L, 3), timeout_at(L, 4), 0};
    build_step(L, &l4_tcp_proxy_layer, proxy, 2);
    return 1;
}

/* core.udp_proxy_step(upstream, label, idle_timeout_ms or nil, total_timeout_ms or nil,
 * responses_max or nil) */
static int udp_proxy_step(lua_State *L)
{
    const struct site_upstream *entry = lua_touserdata(L, 1);
    struct l4_proxy *proxy = build_alloc(L, sizeof(*proxy));
    proxy->upstream = entry->upstream;
    proxy->options =
        (struct l4_splice){timeout_at(L, 3), timeout_at(L, 4), (uint32_t)lua_tonumber(L, 5)};
    build_step(L, &l4_udp_proxy_layer, proxy, 2);
    return 1;
}

/* core.http_site(options, chain, tls server or nil, on_client_hello or nil) */
static int http_site(lua_State *L)
{
    struct l4_http_site *http = build_alloc(L, sizeof(*http));
    struct listener_config config;
    listener_config_init(&config);
    options_read(&listener_options, L, 1, &config);
    config.tls = lua_touserdata(L, 3);
    if (lua_isfunction(L, 4))
        config.tls_hello = script_hello_hook(L, 4);
    l4_http_site_init(http, build_site(L), lua_touserdata(L, 2), &config);
    lua_pushlightuserdata(L, http);
    return 1;
}

/* core.http_step(http site, label) */
static int http_step(lua_State *L)
{
    struct l4_http_site *http = lua_touserdata(L, 1);
    struct chain_step *step = build_step(L, &l4_http_layer, http, 2);
    const struct chain **subs = build_alloc(L, 2 * sizeof(*subs));
    const char **labels = build_alloc(L, 2 * sizeof(*labels));
    subs[0] = http->chain;
    labels[0] = "chain";
    step->subs = subs;
    step->sub_labels = labels;
    return 1;
}

/* core.detect_step({ tls = chain, http = chain, ... }, timeout_ms, label) */
static int detect_step(lua_State *L)
{
    struct l4_detect_layer *layer = build_alloc(L, sizeof(*layer));
    const struct chain **subs = build_alloc(L, (L4_PROTOCOL_COUNT + 1) * sizeof(*subs));
    const char **labels = build_alloc(L, (L4_PROTOCOL_COUNT + 1) * sizeof(*labels));
    unsigned count = 0;
    for (unsigned i = L4_PROTOCOL_TLS; i < L4_PROTOCOL_COUNT; i++) {
        labels[count] = l4_protocol_name((enum l4_protocol)i);
        lua_getfield(L, 1, labels[count]);
        layer->chains[i] = lua_touserdata(L, -1);
        lua_pop(L, 1);
        if (layer->chains[i])
            subs[count++] = layer->chains[i];
    }
    layer->timeout_ms = (uint32_t)luaL_checknumber(L, 2);
    struct chain_step *step = build_step(L, &l4_detect_layer, layer, 3);
    step->subs = subs;
    step->sub_labels = labels;
    return 1;
}

const luaL_Reg builtin_functions[] = {
    {"udp_proxy_step", udp_proxy_step}, {"http_site", http_site},
    {"http_step", http_step},           {"detect_step", detect_step},
    {"tcp_proxy_step", tcp_proxy_step}, {"connect_step", connect_step},
    {"files_step", files_step},         {"access_log_step", access_log_step},
    {"router_step", router_step},       {NULL, NULL},
};
