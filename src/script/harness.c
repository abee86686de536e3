#include "script/harness.h"

#include "base/clock.h"
#include "coro/coro.h"
#include "io/io.h"
#include "proxy/log_sink.h"
#include "proxy/site.h"
#include "proxy/upstream.h"
#include "script/build.h"

#include <string.h>

static struct io *process_io;
static struct site *outer_site; /* put aside while another one is built */

enum { CLOSE_TURNS = 20, CLOSE_TURN_MS = 5 };

/* Address of this variable is the registry's key of what ends the loop with the Lua state. */
static const char closer_key;

/* Sites, servers and jobs are younger, so they have been collected when this runs. */
static int close_loop(lua_State *L)
{
    (void)L;
    upstreams_close_idle();
    log_sinks_flush();
    for (int i = 0; i < CLOSE_TURNS; i++)
        harness_turn(process_io, CLOSE_TURN_MS);
    io_destroy(process_io);
    process_io = NULL;
    coro_fini();
    return 0;
}

static void close_with_state(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&closer_key);
    lua_newuserdata(L, 1);
    harness_set_metatable(L, "monolake.loop", NULL, close_loop);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

static struct io *open_loop(lua_State *L, const char *kind)
{
    struct io_options options = {.kind = IO_KIND_AUTO};
    if (strcmp(kind, "io_uring") == 0)
        options.kind = IO_KIND_URING;
    else if (strcmp(kind, "epoll") == 0)
        options.kind = IO_KIND_EPOLL;
    else if (strcmp(kind, "auto") != 0)
        luaL_error(L, "loop_open: expected \"auto\", \"io_uring\" or \"epoll\"");
    int result = io_create(&process_io, &options);
    if (result < 0)
        luaL_error(L, "no event loop: %s", strerror(-result));
    script_of(L)->io = process_io;
    close_with_state(L);
    return process_io;
}

struct io *harness_io(lua_State *L)
{
    return process_io ? process_io : open_loop(L, "auto");
}

void harness_turn(struct io *io, int wait_ms)
{
    io_turn(io, coro_any_ready() ? 0 : wait_ms);
    coro_run_ready();
}

bool harness_turn_until(struct io *io, const bool *flag, int wait_ms)
{
    int64_t until = clock_now_ms() + wait_ms;
    while (!*flag) {
        int64_t left = until - clock_now_ms();
        if (left <= 0)
            return false;
        harness_turn(io, (int)left);
    }
    return true;
}

void harness_set_metatable(lua_State *L, const char *name, const luaL_Reg *methods,
                           lua_CFunction collect)
{
    if (luaL_newmetatable(L, name)) {
        lua_newtable(L);
        if (methods)
            luaL_register(L, NULL, methods);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, collect);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
}

static int loop_open(lua_State *L)
{
    const char *kind = luaL_checkstring(L, 1);
    if (process_io)
        return luaL_error(L, "loop_open: the loop is open already");
    open_loop(L, kind);
    lua_pushstring(L, io_backend_name(process_io));
    return 1;
}

static int turn(lua_State *L)
{
    harness_turn(harness_io(L), (int)(luaL_checknumber(L, 1) * 1000));
    return 0;
}

/* --- Sites ------------------------------------------------------------------------------------ */

static int site_open(lua_State *L)
{
    struct script *script = script_of(L);
    harness_io(L);
    if (outer_site)
        return luaL_error(L, "site_open: sites nest no deeper than two");
    struct site *site = site_create(luaL_checkstring(L, 1), 1);
    if (!site)
        return luaL_error(L, "out of memory");
    site->script = script;
    outer_site = script->site;
    script->site = site;
    return 0;
}

static int collect_site(lua_State *L)
{
    struct site **box = lua_touserdata(L, 1);
    if (*box)
        site_release(*box);
    *box = NULL;
    return 0;
}

static int site_close(lua_State *L)
{
    struct script *script = script_of(L);
    struct site *site = build_site(L);
    script->site = outer_site;
    outer_site = NULL;
    struct site **box = lua_newuserdata(L, sizeof(*box));
    *box = site;
    harness_set_metatable(L, "monolake.site", NULL, collect_site);
    return 1;
}

struct site *harness_site(lua_State *L, int index)
{
    struct site **box = luaL_checkudata(L, index, "monolake.site");
    return *box;
}

static void push_listener(lua_State *L, const struct site_listener *listener)
{
    lua_newtable(L);
    lua_newtable(L);
    for (unsigned i = 0; i < listener->address_count; i++) {
        lua_pushstring(L, listener->addresses[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "addresses");
    lua_pushlightuserdata(L, (void *)&listener->chain);
    lua_setfield(L, -2, "chain");
}

static int site_listeners(lua_State *L)
{
    struct site *site = harness_site(L, 1);
    lua_newtable(L);
    for (unsigned i = 0; i < site->listener_count; i++) {
        push_listener(L, site->listeners[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

static int describe_site(lua_State *L)
{
    struct arena arena;
    struct site *site = harness_site(L, 1);
    arena_init(&arena);
    struct slice text = site_describe(site, &arena);
    lua_pushlstring(L, text.ptr, text.len);
    arena_fini(&arena);
    return 1;
}

const luaL_Reg harness_functions[] = {
    {"loop_open", loop_open},
    {"turn", turn},
    {"site_open", site_open},
    {"site_close", site_close},
    {"site_listeners", site_listeners},
    {"site_describe", describe_site},
    {NULL, NULL},
};
