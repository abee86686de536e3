/* The PROXY protocol for Lua: whose headers a listener reads, and what they have said. */
#ifndef SCRIPT_PROXIED_H
#define SCRIPT_PROXIED_H

#include "script/state.h"

/* core.proxy_accept, core.proxy_info. */
extern const luaL_Reg proxied_functions[];

#endif
