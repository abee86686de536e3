/*
 * The verbs "peek", "client_hello" and "detect": what a client of layer 4 says first, for Lua.
 * Their first argument is the request's address, the last one the milliseconds to wait. They yield
 * nil and why not: a text that is the layer's to judge, or a negative errno.
 */
#ifndef SCRIPT_PEEK_H
#define SCRIPT_PEEK_H

#include <lauxlib.h>
#include <lua.h>

struct call;

/* address, count, ms: a string. */
void peek_take(struct call *call, lua_State *L);
void peek_perform(struct call *call);
int peek_give(struct call *call, lua_State *L);

/* address, ms: a table. */
void hello_take(struct call *call, lua_State *L);
void hello_perform(struct call *call);
int hello_give(struct call *call, lua_State *L);

/* address, ms: "tls", "http", "h2c" or "other". */
void detect_perform(struct call *call);
int detect_give(struct call *call, lua_State *L);

/* For "monolake.core": what a hello's table lacks, filled in by lua/monolake/internal/conn.lua. */
extern const luaL_Reg peek_functions[];

#endif
