/*
 * "monolake.core": what the Lua of lua/ and lualib/ needs of C beyond the FFI. Also the entry point
 * of the Lua C module monolake/core.so, by which a plain LuaJIT runs chains with the same code.
 */
#include "script/build.h"
#include "script/cidr.h"
#include "script/harness.h"
#include "script/peek.h"
#include "script/proxied.h"
#include "script/run.h"
#include "script/shared.h"
#include "script/state.h"
#include "script/stats.h"
#include "script/secret.h"
#include "script/tls.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/output.h"
#include "tls/digest.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static void push_verbs(lua_State *L)
{
    lua_createtable(L, 0, (int)script_verb_count);
    for (unsigned i = 0; i < script_verb_count; i++) {
        lua_pushlightuserdata(L, (void *)&script_verbs[i]);
        lua_setfield(L, -2, script_verbs[i].name);
    }
}

/* core.log(level, text): 0 error, 1 warn, 2 info, 3 debug. */
static int write_log(lua_State *L)
{
    int level = (int)luaL_checkinteger(L, 1);
    if (level < LOG_LEVEL_ERROR || level > LOG_LEVEL_DEBUG)
        return luaL_argerror(L, 1, "not a level");
    log_at((enum log_level)level, "%s", luaL_checkstring(L, 2));
    return 0;
}

/* core.print(text): to standard output, whose reader nobody waits for: what it does not take is
 * dropped. Of a text that is cut the rest is, and its line is ended before the next one. */
static int print_text(lua_State *L)
{
    static struct log_limit limit;
    static bool cut_short;
    uint32_t suppressed;
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    fflush(stdout); /* what io.write has put there comes first */
    if (cut_short)
        cut_short = output_write(&output_standard, "\n", 1) != 1;
    ssize_t count = cut_short ? 0 : output_write(&output_standard, text, len);
    if (count == (ssize_t)len)
        return 0;
    cut_short = cut_short || count > 0;
    counters_add(COUNTER_LOG_MESSAGES_DROPPED, 1);
    if (log_limit_pass(&limit, 1, &suppressed))
        log_warn("standard output took no more: what a script printed is missing there (%u more "
                 "were not logged)",
                 suppressed);
    return 0;
}

/* core.log_failure(text): the traceback of a layer; rate-limited. */
static int log_failure(lua_State *L)
{
    uint32_t suppressed = 0;
    counters_add(COUNTER_LAYER_FAILURES, 1);
    if (!log_limit_pass(&script_of(L)->errors, 10, &suppressed))
        return 0;
    log_error("%s", luaL_checkstring(L, 1));
    if (suppressed)
        log_error("%u further failures of layers were not logged", suppressed);
    return 0;
}

/* core.mend(coroutine): to be called at once when it has failed. */
static int mend(lua_State *L)
{
    lua_State *failed = lua_tothread(L, 1);
    if (failed)
        script_mend_thread(script_of(L), failed);
    return 0;
}

static bool has_library(const char *folder)
{
    char path[PATH_MAX + 128];
    int len = snprintf(path, sizeof(path), "%s/monolake.lua", folder);
    return len > 0 && (size_t)len < sizeof(path) && access(path, R_OK) == 0;
}

/* core.library(): the folder of lualib, found from where the program or core.so is; or nil. */
static int library(lua_State *L)
{
    static const char *const places[] = {"../share/monolake-lua/lualib", "../lualib"};
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len <= 0)
        return 0;
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char folder[PATH_MAX + 64];
        char real[PATH_MAX];
        snprintf(folder, sizeof(folder), "%s/%s", self, places[i]);
        if (has_library(folder) && realpath(folder, real)) {
            lua_pushstring(L, real);
            return 1;
        }
    }
    return 0;
}

static struct slice text_at(lua_State *L, int index)
{
    size_t len;
    const char *text = luaL_checklstring(L, index, &len);
    return slice_of(text, len);
}

static int push_digest(lua_State *L, const uint8_t digest[DIGEST_SHA256_BYTES], int result)
{
    char text[2 * DIGEST_SHA256_BYTES + 1];
    if (result < 0)
        return luaL_error(L, "out of memory");
    for (unsigned i = 0; i < DIGEST_SHA256_BYTES; i++)
        snprintf(text + 2 * (size_t)i, 3, "%02x", digest[i]);
    lua_pushlstring(L, text, sizeof(text) - 1);
    return 1;
}

/* core.sha256(text): in hexadecimal. */
static int sha256(lua_State *L)
{
    uint8_t digest[DIGEST_SHA256_BYTES];
    return push_digest(L, digest, digest_sha256(text_at(L, 1), digest));
}

/* core.hmac_sha256(key, text): in hexadecimal. */
static int hmac_sha256(lua_State *L)
{
    uint8_t digest[DIGEST_SHA256_BYTES];
    return push_digest(L, digest, digest_hmac_sha256(text_at(L, 1), text_at(L, 2), digest));
}

/* core.random(count): so many random bytes, 1 to 256, from the kernel. */
static int random_bytes(lua_State *L)
{
    char bytes[256];
    size_t count = (size_t)luaL_checkinteger(L, 1);
    luaL_argcheck(L, count >= 1 && count <= sizeof(bytes), 1, "expected 1 to 256");
    if (getrandom(bytes, count, 0) != (ssize_t)count)
        return luaL_error(L, "the kernel gives no random bytes");
    lua_pushlstring(L, bytes, count);
    return 1;
}

static const luaL_Reg core_functions[] = {
    {"sha256", sha256}, {"hmac_sha256", hmac_sha256}, {"random", random_bytes},
    {"log", write_log}, {"log_failure", log_failure}, {"library", library},
    {"mend", mend},     {"print", print_text},        {NULL, NULL},
};

/* In a plain LuaJIT the symbols of this object are local to it; native layers and the FFI need
 * them in the global scope, as they are in the program. */
static void export_symbols(lua_State *L)
{
    Dl_info info;
    if (!dladdr((void *)luaopen_monolake_core, &info) || !info.dli_fname)
        return;
    if (!dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) && !dlopen(NULL, RTLD_NOW))
        luaL_error(L, "monolake.core: %s", dlerror());
}

/* Address of this variable is the registry's key of the table "monolake.core". */
static const char core_key;

ML_API int luaopen_monolake_core(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&core_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (lua_istable(L, -1))
        return 1; /* it was taken out of package.loaded: see load_embedded */
    export_symbols(L);
    lua_newtable(L);
    lua_pushlightuserdata(L, (void *)&core_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    luaL_register(L, NULL, core_functions);
    luaL_register(L, NULL, build_functions);
    luaL_register(L, NULL, builtin_functions);
    luaL_register(L, NULL, tls_functions);
    luaL_register(L, NULL, secret_functions);
    luaL_register(L, NULL, peek_functions);
    luaL_register(L, NULL, cidr_functions);
    luaL_register(L, NULL, stats_functions);
    luaL_register(L, NULL, shared_functions);
    luaL_register(L, NULL, proxied_functions);
    luaL_register(L, NULL, harness_functions);
    luaL_register(L, NULL, harness_request_functions);
    luaL_register(L, NULL, harness_server_functions);
    push_verbs(L);
    lua_setfield(L, -2, "verbs");
    /* Known before the program's own Lua asks for it. */
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaded");
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "monolake.core");
    lua_pop(L, 2);
    script_adopt(L);
    return 1;
}
