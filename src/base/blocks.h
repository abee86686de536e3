/*
 * Memory for libraries that make and free many small things in a short time: more than malloc keeps
 * at hand (7 of each size), and for arenas and buffers of a TLS record, which it merges and splits
 * again each time. What is freed is kept here, a bounded amount of each size, for whoever asks next
 * in the process. Blocks are malloc's own: nothing is added to them.
 */
#ifndef BASE_BLOCKS_H
#define BASE_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>

/* As malloc, realloc (whose size is not 0) and free do. */
void *blocks_take(size_t size);
void *blocks_change(void *bytes, size_t size);
void blocks_give(void *bytes);

/* Frees half of what has lain unused since the last call. Returns true if there was any. */
bool blocks_trim(void);

#endif
