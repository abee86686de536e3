/*
 * Chains in a plain LuaJIT: what monolake.test is made of. Requests come from Lua tables, run
 * through the very code that serves them in the program, and their responses become Lua tables; the
 * event loop turns while a spec waits. Functions of "monolake.core":
 *
 *   loop_open(kind)               "auto", "io_uring" or "epoll"; by itself at first use: auto
 *   turn(seconds)                 one turn of the loop, waiting at most so long
 *   site_open(path)               begins a site: what is built from now on belongs to it
 *   site_close() -> site          ends it; the site lives until it is collected
 *   site_listeners(site)          { { addresses = { ... }, chain = userdata }, ... }
 *   site_describe(site)           the tree of -t
 *   start(site, chain, request)   -> job; see harness_request.c for the request's table
 *   fetch(request)                -> job, of a request to request.address by the native client
 *   serve(site, chain, address)   -> server; server:port(), server:address(), server:close()
 *   job:wait(seconds)             turns the loop until it has ended; false if time is up
 *   job:cancel()                  as if the client had gone
 *   job:request() -> address, generation   of the request, until the loop has turned
 *   job:result()                  { status, headers = { {name, value}, ... }, body, trailers,
 *                                 interim = { status, ... }, error }, or nil and why there is none
 */
#ifndef SCRIPT_HARNESS_H
#define SCRIPT_HARNESS_H

#include "http/exchange.h"
#include "script/state.h"

extern const luaL_Reg harness_functions[];
extern const luaL_Reg harness_request_functions[];
extern const luaL_Reg harness_server_functions[];

/* The loop of this process; opened when first asked for. A Lua error when that fails. */
struct io *harness_io(lua_State *L);

/* One turn: completions, timers, ready coroutines. */
void harness_turn(struct io *io, int wait_ms);

/* Turns the loop until *flag is set or the time is up; returns *flag. */
bool harness_turn_until(struct io *io, const bool *flag, int wait_ms);

/* The site behind the userdata at `index`. */
struct site *harness_site(lua_State *L, int index);

/* Makes `name`'s metatable the one of the userdata on top of the stack, with these methods. */
void harness_set_metatable(lua_State *L, const char *name, const luaL_Reg *methods,
                           lua_CFunction collect);

#endif
