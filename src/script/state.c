#include "script/state.h"

#include "net/cidr.h"
#include "script/embedded.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <lualib.h>

/* Address of this variable is the registry's key of the struct script. */
static const char script_key;

static int out_of_memory(lua_State *L)
{
    log_error("Lua state: %s", lua_tostring(L, -1));
    return 0; /* LuaJIT ends the process: the supervisor starts another worker */
}

/* Runs a module once a state and keeps its value, whatever becomes of package.loaded: busted takes
 * back what a spec file has loaded, but types cannot be declared to the FFI twice. */
static int load_embedded(lua_State *L)
{
    const struct embedded_module *module = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushlightuserdata(L, (void *)module);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return 1;
    if (luaL_loadbuffer(L, (const char *)module->code, module->size, module->name) != 0)
        return lua_error(L);
    lua_pushstring(L, module->name);
    lua_call(L, 1, 1);
    lua_pushlightuserdata(L, (void *)module);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 1;
}

void script_preload(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    for (size_t i = 0; i < embedded_module_count; i++) {
        lua_pushlightuserdata(L, (void *)&embedded_modules[i]);
        lua_pushcclosure(L, load_embedded, 1);
        lua_setfield(L, -2, embedded_modules[i].name);
    }
    lua_pushcfunction(L, luaopen_monolake_core);
    lua_setfield(L, -2, "monolake.core");
    lua_pop(L, 2);
}

struct script *script_of(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&script_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    struct script *script = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return script;
}

static struct script *create(lua_State *L)
{
    struct script *script = calloc(1, sizeof(*script));
    if (!script)
        return NULL;
    script->L = L;
    script->sources = LUA_NOREF;
    for (unsigned i = 0; i < VALUE_COUNT; i++)
        script->values[i] = LUA_NOREF;
    return script;
}

/* LuaJIT's texts are there as long as somebody holds them: then they need not be made. */
static void hold_texts(lua_State *L, struct script *script)
{
    lua_pushliteral(L, "not enough memory");
    script->values[VALUE_NO_MEMORY] = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_State *dead = lua_newthread(L);
    lua_pushcfunction(dead, lua_error);
    lua_pushnil(dead);
    lua_resume(dead, 1);
    lua_resume(dead, 0);
    lua_xmove(dead, L, 1);
    script->values[VALUE_DEAD] = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
}

/* For script_of. From now on luaL_unref allocates nothing, as the list of free references exists.
 */
static void enter(lua_State *L, struct script *script)
{
    lua_pushlightuserdata(L, (void *)&script_key);
    lua_pushlightuserdata(L, script);
    lua_rawset(L, LUA_REGISTRYINDEX);
    lua_pushboolean(L, true);
    luaL_unref(L, LUA_REGISTRYINDEX, luaL_ref(L, LUA_REGISTRYINDEX));
    hold_texts(L, script);
}

void script_mend_thread(struct script *script, lua_State *L)
{
    if (lua_status(L) != LUA_ERRMEM)
        return;
    lua_resume(L, 0); /* cannot be, but sets the top */
    lua_pop(L, 1);
    script_push_value(script, L, VALUE_NO_MEMORY);
}

struct attempt {
    void (*work)(lua_State *L, void *arg);
    void *arg;
};

static int attempt(lua_State *L)
{
    const struct attempt *attempt = lua_touserdata(L, 1);
    attempt->work(L, attempt->arg);
    return 0;
}

bool script_try(struct script *script, void (*work)(lua_State *L, void *arg), void *arg)
{
    struct attempt what = {work, arg};
    return lua_cpcall(script->L, attempt, &what) == 0;
}

/* Takes the values that C asks for from the table that monolake.internal.boot returns. */
static void take_values(struct script *script, lua_State *L)
{
    assert(script);
    static const char *const names[VALUES_OF_BOOT] = {
        [VALUE_HANDLES] = "handles",         [VALUE_LOAD_SITE] = "load_site",
        [VALUE_NEXT_CHUNK] = "next_chunk",   [VALUE_MAP_CHUNK] = "map_chunk",
        [VALUE_CONN_CLOSED] = "conn_closed",
    };
    for (unsigned i = 0; i < VALUES_OF_BOOT; i++) {
        lua_getfield(L, -1, names[i]);
        assert(!lua_isnil(L, -1));
        script->values[i] = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_pop(L, 1);
}

static void keep_sources(lua_State *L, const struct script_options *options)
{
    lua_createtable(L, 0, (int)options->source_count);
    for (unsigned i = 0; i < options->source_count; i++) {
        if (options->sources[i].secret ||
            cidr_is_block(slice_of(options->sources[i].text, options->sources[i].len)))
            continue; /* is no text for Lua */
        lua_pushlstring(L, options->sources[i].text, options->sources[i].len);
        lua_setfield(L, -2, options->sources[i].path);
    }
    script_of(L)->sources = luaL_ref(L, LUA_REGISTRYINDEX);
}

struct boot {
    struct script *script;
    const struct script_options *options;
};

static void boot(lua_State *L, void *arg)
{
    const struct boot *boot = arg;
    enter(L, boot->script);
    keep_sources(L, boot->options);
    luaL_openlibs(L);
    script_preload(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "monolake.internal.boot");
    lua_call(L, 1, 1);
    take_values(boot->script, L);
}

struct script *script_create(const struct script_options *options, char **error)
{
    lua_State *L = luaL_newstate();
    struct script *script = L ? create(L) : NULL;
    if (!script) {
        if (L)
            lua_close(L);
        *error = strdup("no memory for a Lua state");
        return NULL;
    }
    lua_atpanic(L, out_of_memory);
    script->owns_state = true;
    script->io = options->io;
    script->probe = options->probe;
    script->given = options->sources;
    script->given_count = options->source_count;
    script->on_file = options->on_file;
    script->on_file_arg = options->on_file_arg;
    memory_begin(&script->memory, L);
    script->memory.pause = options->pause;
    script->memory.pause_arg = options->pause_arg;
    struct boot what = {script, options};
    if (!script_try(script, boot, &what)) {
        const char *why = script_error_text(L);
        *error = strdup(why ? why : "the program's own Lua failed");
        script_destroy(script);
        return NULL;
    }
    return script;
}

/* A coroutine that stays as long as the state does, and that nobody runs: see script_try. */
static lua_State *lasting_thread(lua_State *L)
{
    lua_State *own = lua_newthread(L);
    luaL_ref(L, LUA_REGISTRYINDEX);
    return own;
}

struct script *script_adopt(lua_State *L)
{
    struct script *script = script_of(L);
    if (script)
        return script;
    script = create(lasting_thread(L));
    if (!script) {
        luaL_error(L, "out of memory");
        return NULL; /* it does not return */
    }
    enter(L, script);
    script_preload(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "monolake.internal.boot");
    lua_call(L, 1, 1);
    take_values(script, L);
    return script;
}

void script_destroy(struct script *script)
{
    while (script->idle) {
        struct thread *thread = script->idle;
        script->idle = thread->next;
        script_drop_thread(script, thread);
    }
    assert(script->thread_count == 0);
    if (script->owns_state) {
        memory_end(&script->memory);
        lua_close(script->L);
    }
    free(script);
}

static void make_thread(lua_State *L, void *arg)
{
    struct thread *thread = arg;
    thread->L = lua_newthread(L);
    thread->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

struct thread *script_take_thread(struct script *script)
{
    struct thread *thread = script->idle;
    if (thread) {
        script->idle = thread->next;
        script->idle_count--;
        if (script->idle_count < script->idle_floor)
            script->idle_floor = script->idle_count;
        return thread;
    }
    thread = malloc(sizeof(*thread));
    if (!thread)
        return NULL;
    if (!script_try(script, make_thread, thread)) {
        lua_pop(script->L, 1);
        free(thread);
        return NULL;
    }
    script->thread_count++;
    return thread;
}

void script_return_thread(struct script *script, struct thread *thread)
{
    if (script->idle_count >= THREADS_IDLE_MAX) {
        script_drop_thread(script, thread);
        return;
    }
    lua_settop(thread->L, 0);
    thread->next = script->idle;
    script->idle = thread;
    script->idle_count++;
}

void script_drop_thread(struct script *script, struct thread *thread)
{
    luaL_unref(script->L, LUA_REGISTRYINDEX, thread->ref);
    script->thread_count--;
    free(thread);
}

void script_trim_threads(struct script *script)
{
    for (uint32_t drop = (script->idle_floor + 1) / 2; drop; drop--) {
        struct thread *thread = script->idle;
        script->idle = thread->next;
        script->idle_count--;
        script_drop_thread(script, thread);
    }
    script->idle_floor = script->idle_count;
}

const char *script_error_text(lua_State *L)
{
    return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
}

void script_push_value(struct script *script, lua_State *L, enum script_value value)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, script->values[value]);
}
