/* The program's counters for Lua; see base/counters.h. */
#ifndef SCRIPT_STATS_H
#define SCRIPT_STATS_H

#include <lauxlib.h>

extern const luaL_Reg stats_functions[];

#endif
