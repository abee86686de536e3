/*
 * Sets of prefixes for Lua: built from texts, or from files of a site. What the probe has made of a
 * file travels to the workers in place of its text, so that they need not build it, too. Never
 * suspends.
 */
#ifndef SCRIPT_CIDR_H
#define SCRIPT_CIDR_H

#include "script/access.h"
#include "script/state.h"

struct cidr_sets;

/* core.cidr_list, core.cidr_file, core.cidr_address. */
extern const luaL_Reg cidr_functions[];

/* The sets in the list at `index`, in the memory of the site that is built, which holds them; NULL
 * if it is nil. */
const struct cidr_sets *script_cidr_sets(lua_State *L, int index);

/* For the FFI: is that address, or that of a request's or connection's client, in the set? 1, 0,
 * ACCESS_INVALID if the text is no address, ACCESS_OVER if the request has ended. */
ML_API int script_cidr_text(intptr_t set, const char *text, size_t len);
ML_API int script_cidr_request(intptr_t set, intptr_t request, uint32_t generation);

#endif
