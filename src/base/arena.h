/*
 * Arena: memory that lives as long as one request (or one configuration) and is freed at once,
 * with a list of clean-ups that run in reverse order then. Never suspends.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/slice.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct arena_chunk;
struct arena_defer;

struct arena {
    char *cursor;               /* next free byte of the newest chunk */
    char *end;                  /* its end */
    struct arena_chunk *chunks; /* newest first; owned */
    struct arena_defer *defers; /* newest first; live in the arena itself */
    size_t used_bytes;          /* total handed out, for bounds and statistics */
    bool frugal;                /* arena_be_frugal was called */
};

/* Makes an empty arena; allocates nothing. */
void arena_init(struct arena *arena);

/* Until its end it grows in small chunks: for what lives long and needs little. */
void arena_be_frugal(struct arena *arena);

/* Runs the deferred clean-ups now, newest first. */
void arena_run_defers(struct arena *arena);

/* Runs the deferred clean-ups and frees everything: it is as empty as after arena_init. */
void arena_fini(struct arena *arena);

/* `size` bytes aligned for any type, or NULL when memory is exhausted. Not zeroed. */
void *arena_alloc(struct arena *arena, size_t size);

/* Like arena_alloc, zeroed. */
void *arena_zalloc(struct arena *arena, size_t size);

/* A copy of the bytes, with a NUL behind them that `len` does not count; NULL ptr when exhausted.
 */
struct slice arena_copy(struct arena *arena, struct slice bytes);

/* Formatted text in the arena, with a NUL that `len` does not count; NULL ptr when exhausted. */
struct slice arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct slice arena_vprintf(struct arena *arena, const char *format, va_list args);

/* Has `fn(arg)` called by arena_fini. Returns 0, or -ENOMEM (then nothing is registered). */
int arena_defer(struct arena *arena, void (*fn)(void *arg), void *arg);

#endif
