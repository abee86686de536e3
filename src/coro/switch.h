/* The context switch: saves the callee-saved registers on the current stack and continues on
 * another one. The only assembly in the program. */
#ifndef CORO_SWITCH_H
#define CORO_SWITCH_H

#include <stddef.h>

/* Saves the present context in *save and continues at `to`. */
void coro_switch(void **save, void *to);

/* A context on the stack [base, base + bytes) that will call `entry`, which must never return. */
void *coro_switch_prepare(char *base, size_t bytes, void (*entry)(void));

#endif
