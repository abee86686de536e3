/* Ends a script that runs too long: a timer's signal arms a hook, which raises an error in it. */
#ifndef SCRIPT_INTERRUPT_H
#define SCRIPT_INTERRUPT_H

#include <lua.h>
#include <stdint.h>

/* After time_max_ms raises an error in what this state runs. Turns the state's compiler off, as
 * compiled loops look for no hook. A script may still catch the error or turn the compiler on: who
 * must be sure limits its process too. One state of a process at a time. */
void interrupt_begin(lua_State *L, uint32_t time_max_ms);

/* Lets it run on undisturbed. */
void interrupt_end(void);

#endif
