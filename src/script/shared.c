#include "script/shared.h"

#include "script/harness.h"
#include "shared/open.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct shared_dict *dict_of(intptr_t dict)
{
    return (struct shared_dict *)dict; /* NOLINT(performance-no-int-to-ptr): the FFI's form */
}

int script_shared_get(intptr_t dict, const char *key, size_t len, struct script_shared *out)
{
    struct shared_value value;
    int result = shared_get(dict_of(dict), slice_of(key, len), &value);
    if (result == 1)
        *out =
            (struct script_shared){(int)value.type, value.number, value.bytes.ptr, value.bytes.len};
    return result;
}

int script_shared_put(intptr_t dict, int how, const char *key, size_t len,
                      const struct script_shared *value, double ttl_ms)
{
    struct shared_value put = {(enum shared_type)value->type, value->number,
                               slice_of(value->ptr, value->len)};
    return shared_put(dict_of(dict), (enum shared_how)how, slice_of(key, len), &put,
                      (int64_t)ttl_ms);
}

int script_shared_incr(intptr_t dict, const char *key, size_t len, double by, int has_init,
                       double init, double ttl_ms, struct script_shared *out)
{
    return shared_incr(dict_of(dict), slice_of(key, len), by, has_init ? &init : NULL,
                       (int64_t)ttl_ms, &out->number);
}

int script_shared_delete(intptr_t dict, const char *key, size_t len)
{
    return shared_delete(dict_of(dict), slice_of(key, len));
}

int script_shared_ttl(intptr_t dict, const char *key, size_t len, double *left_ms)
{
    int64_t left;
    int result = shared_ttl(dict_of(dict), slice_of(key, len), &left);
    if (result == 1)
        *left_ms = (double)left;
    return result;
}

int script_shared_expire(intptr_t dict, const char *key, size_t len, double ttl_ms)
{
    return shared_expire(dict_of(dict), slice_of(key, len), (int64_t)ttl_ms);
}

int script_shared_flush(intptr_t dict)
{
    return shared_flush(dict_of(dict));
}

int script_shared_stats(intptr_t dict, double *out)
{
    struct shared_stats stats;
    int result = shared_stats(dict_of(dict), &stats);
    const uint64_t all[] = {stats.entries, stats.bytes_used, stats.bytes,  stats.evicted,
                            stats.expired, stats.hits,       stats.misses, stats.repaired};
    for (unsigned i = 0; result == 0 && i < sizeof(all) / sizeof(all[0]); i++)
        out[i] = (double)all[i];
    return result;
}

static int collect(lua_State *L)
{
    struct shared_dict **box = lua_touserdata(L, 1);
    if (*box)
        shared_close(*box);
    *box = NULL;
    return 0;
}

/* core.shared_open(name, bytes, evicts) -> userdata, which keeps it open; or nil and why not. */
static int open_dict(lua_State *L)
{
    struct shared_spec spec = {.size = (uint64_t)luaL_checknumber(L, 2),
                               .evicts = lua_toboolean(L, 3)};
    snprintf(spec.name, sizeof(spec.name), "%s", luaL_checkstring(L, 1));
    struct shared_dict **box = lua_newuserdata(L, sizeof(*box));
    *box = NULL;
    harness_set_metatable(L, "monolake.shared", NULL, collect);
    int result = shared_open(&spec, box);
    if (result == 0)
        return 1;
    lua_pushnil(L);
    lua_pushstring(L, result == -ENOENT ? "it was not there when the site was checked"
                                        : strerror(-result));
    return 2;
}

/* core.shared_address(userdata): for the FFI. */
static int address_of(lua_State *L)
{
    struct shared_dict **box = luaL_checkudata(L, 1, "monolake.shared");
    lua_pushnumber(L, (lua_Number)(intptr_t)*box);
    return 1;
}

const luaL_Reg shared_functions[] = {
    {"shared_open", open_dict},
    {"shared_address", address_of},
    {NULL, NULL},
};
