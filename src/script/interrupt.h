/* Ends a script that runs too long: a signal arms a hook, which raises an error in it. */
#ifndef SCRIPT_INTERRUPT_H
#define SCRIPT_INTERRUPT_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct request;

/* For the script of a site while it is loaded: a timer's signal. */

/* After time_max_ms raises an error in what this state runs. Turns the state's compiler off, as
 * compiled loops look for no hook. A script may still catch the error or turn the compiler on: who
 * must be sure limits its process too. One state of a process at a time. */
void interrupt_begin(lua_State *L, uint32_t time_max_ms);

/* Lets it run on undisturbed. */
void interrupt_end(void);

/* For workers. Says which state runs a layer now, for which request (NULL: it loads a site);
 * without a state: none does any more. */
void interrupt_watch(lua_State *L, const struct request *request);

/* The site that is loaded is put aside for others, and taken up again. Meanwhile interrupt_running
 * raises its error in it, unless another one runs. */
void interrupt_put_aside(void);
void interrupt_take_up(void);

/* The request whose layer runs, or NULL. */
const struct request *interrupt_request(void);

/* Pushes "file:line: " of the innermost function that is Lua, for messages of hooks. */
void interrupt_push_place(lua_State *L);

/* Raises an error in the layer or site that runs, which has had so much time, as soon as the
 * interpreter is at it: not in compiled code, not in a call that blocks. False: none runs. To be
 * called by a handler of a signal. */
bool interrupt_running(uint32_t time_max_ms);

/* Has that been asked for in vain so far? */
bool interrupt_is_armed(void);

/* Logs where in its Lua the layer or site stands, for a worker that is about to be killed: reading
 * the stack of what may be half-way through anything is not safe for one that is to go on. */
void interrupt_log_place(void);

#endif
