/* Coroutine stacks: guarded mappings, reused last-in first-out so that warm pages stay warm. */
#ifndef CORO_STACK_H
#define CORO_STACK_H

#include <stddef.h>

struct stack {
    char *base;   /* lowest usable byte, just above the guard */
    size_t bytes; /* usable */
};

/* Takes a stack of the usual size. Returns 0, or -ENOMEM. */
int stack_get(struct stack *stack);

/* Makes one of another size, in bytes. Returns 0, or -ENOMEM. */
int stack_map(struct stack *stack, size_t bytes);

/* Gives it back; the usual ones are kept for reuse up to a bound. */
void stack_put(struct stack *stack);

/* Gives the memory back that half of those hold which are kept, a bounded number of them: the next
 * to use such a stack finds it fresh, which costs less than another mapping. */
void stack_dry_cached(void);

size_t stack_cached(void);
void stack_drop_cached(void);

#endif
