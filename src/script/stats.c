#include "script/stats.h"

#include "base/counters.h"

#include <stdio.h>

/* Appends a row to the table on top of the stack. */
static void add_row(lua_State *L, const struct counter_info *info, const char *name,
                    const char *value, int64_t count)
{
    lua_createtable(L, 0, 6);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, info->label);
    lua_setfield(L, -2, "label");
    lua_pushstring(L, value);
    lua_setfield(L, -2, "value");
    lua_pushstring(L, info->help);
    lua_setfield(L, -2, "help");
    lua_pushboolean(L, info->gauge);
    lua_setfield(L, -2, "gauge");
    lua_pushnumber(L, (lua_Number)count);
    lua_setfield(L, -2, "count");
    lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
}

static void add_upstreams(lua_State *L, enum upstream_counter counter)
{
    const struct counter_info *info = &upstream_counter_infos[counter];
    char name[64];
    snprintf(name, sizeof(name), "upstream_%s", info->name);
    for (unsigned i = 0; i < COUNTERS_UPSTREAMS_MAX; i++) {
        const char *upstream = counters_upstream_name(i);
        int64_t count = counters_sum_upstream(i, counter);
        if (upstream && (i != COUNTERS_UPSTREAM_OTHERS || count))
            add_row(L, info, name, upstream, count);
    }
}

/* core.counters() -> { { name =, label =, value =, help =, gauge =, count = }, ... }; those of the
 * same name stand together, the first of them with the help. */
static int counters(lua_State *L)
{
    lua_newtable(L);
    for (unsigned i = 0; i < COUNTER_COUNT; i++) {
        const struct counter_info *info = &counter_infos[i];
        add_row(L, info, info->name, info->value, counters_sum(i));
    }
    for (unsigned i = 0; i < UPSTREAM_COUNTER_COUNT; i++)
        add_upstreams(L, i);
    return 1;
}

const luaL_Reg stats_functions[] = {
    {"counters", counters},
    {NULL, NULL},
};
