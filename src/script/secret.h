/*
 * Texts that may hold private keys. Lua has them as userdata and never as strings, which stay in
 * memory, and are copied there, as the collector likes: these are wiped when nobody needs them.
 */
#ifndef SCRIPT_SECRET_H
#define SCRIPT_SECRET_H

#include "script/state.h"

/* core.secret_file, core.secret_text, core.secret_digest, core.secret_wipe. */
extern const luaL_Reg secret_functions[];

/* The text at that place of the stack; empty if there is none. */
struct slice secret_at(lua_State *L, int index);

#endif
