#include "base/arena.h"

#include "base/blocks.h"

#include <errno.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>

/* One standard chunk holds a usual request (head, rewritten fields, response head). */
enum { CHUNK_BYTES = 4096, FRUGAL_BYTES = 1024, CHUNK_ALIGN = 16 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size; /* bytes behind this header */
    alignas(CHUNK_ALIGN) char data[];
};

struct arena_defer {
    struct arena_defer *next;
    void (*fn)(void *arg);
    void *arg;
};

static bool add_chunk(struct arena *arena, size_t size)
{
    size_t size_min = (arena->frugal ? FRUGAL_BYTES : CHUNK_BYTES) - sizeof(struct arena_chunk);
    if (size < size_min)
        size = size_min;
    struct arena_chunk *chunk = blocks_take(sizeof(*chunk) + size);
    if (!chunk)
        return false;
    chunk->size = size;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->cursor = chunk->data;
    arena->end = chunk->data + size;
    return true;
}

void arena_run_defers(struct arena *arena)
{
    while (arena->defers) {
        struct arena_defer *defer = arena->defers;
        arena->defers = defer->next;
        defer->fn(defer->arg);
    }
}

void arena_init(struct arena *arena)
{
    *arena = (struct arena){0};
}

void arena_be_frugal(struct arena *arena)
{
    arena->frugal = true;
}

void arena_fini(struct arena *arena)
{
    arena_run_defers(arena);
    for (struct arena_chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        blocks_give(chunk);
    }
    arena_init(arena);
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (size > PTRDIFF_MAX)
        return NULL;
    size = size ? (size + CHUNK_ALIGN - 1) & ~(size_t)(CHUNK_ALIGN - 1) : CHUNK_ALIGN;
    if (size > (size_t)(arena->end - arena->cursor) && !add_chunk(arena, size))
        return NULL;
    void *memory = arena->cursor;
    arena->cursor += size;
    arena->used_bytes += size;
    return memory;
}

void *arena_zalloc(struct arena *arena, size_t size)
{
    void *memory = arena_alloc(arena, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}

struct slice arena_copy(struct arena *arena, struct slice bytes)
{
    char *copy = arena_alloc(arena, bytes.len + 1);
    if (!copy)
        return (struct slice){NULL, 0};
    if (bytes.len)
        memcpy(copy, bytes.ptr, bytes.len);
    copy[bytes.len] = '\0';
    return slice_of(copy, bytes.len);
}

struct slice arena_vprintf(struct arena *arena, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    char *text = len < 0 ? NULL : arena_alloc(arena, (size_t)len + 1);
    if (text)
        vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return text ? slice_of(text, (size_t)len) : (struct slice){NULL, 0};
}

struct slice arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct slice text = arena_vprintf(arena, format, args);
    va_end(args);
    return text;
}

int arena_defer(struct arena *arena, void (*fn)(void *arg), void *arg)
{
    struct arena_defer *defer = arena_alloc(arena, sizeof(*defer));
    if (!defer)
        return -ENOMEM;
    *defer = (struct arena_defer){.next = arena->defers, .fn = fn, .arg = arg};
    arena->defers = defer;
    return 0;
}
