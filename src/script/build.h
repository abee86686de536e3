/*
 * Filling a site: the functions of "monolake.core" that lua/build.lua calls while a script is
 * loaded. What they make lives in the arena of the script's present site. Never suspends.
 */
#ifndef SCRIPT_BUILD_H
#define SCRIPT_BUILD_H

#include "script/state.h"

/* The site that is being built; a Lua error if none is. */
struct site *build_site(lua_State *L);

/* Memory of that site, zeroed; a Lua error when exhausted. */
void *build_alloc(lua_State *L, size_t size);

/* A copy of the text at `index` (nil: NULL) in that site's memory. */
const char *build_text(lua_State *L, int index);

/* Pushes a new step of a chain as a light userdata; its instance is destroyed with the site. The
 * label is the text at `label_index`. */
struct chain_step *build_step(lua_State *L, const ml_layer *layer, void *self, int label_index);

extern const luaL_Reg build_functions[];

/* core.native_step(path, config_json, label): loads a shared object; see native.c. */
int build_native_step(lua_State *L);

/* core.router_step and its like: the built-in layers; see builtin.c. */
extern const luaL_Reg builtin_functions[];

#endif
