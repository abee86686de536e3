/*
 * Receive buffers of one worker: blocks of equal size, allocated on demand up to a bound, reused
 * last-in first-out so that warm memory stays warm. Never suspends.
 */
#ifndef IO_BUFPOOL_H
#define IO_BUFPOOL_H

#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct bufpool {
    struct io_buf *free;   /* owned; newest first */
    uint64_t free_count;   /* blocks in that list */
    uint64_t free_floor;   /* its lowest count since the last trim */
    uint64_t count;        /* blocks that exist */
    uint64_t count_max;    /* at least 1 */
    uint32_t buffer_bytes; /* capacity of one */
    bool datagrams;        /* marks its buffers as such */
    bool lacking;          /* the last attempt to allocate one has failed */
};

void bufpool_init(struct bufpool *pool, uint32_t buffer_bytes, uint64_t total_bytes_max);

/* Frees every block; none may be in use. */
void bufpool_fini(struct bufpool *pool);

/* A buffer with data at its base and len 0, or NULL at the bound (or when memory is exhausted). */
struct io_buf *bufpool_get(struct bufpool *pool);

void bufpool_put(struct bufpool *pool, struct io_buf *buf);

/* How many buffers bufpool_get would find, as far as is known. */
static inline uint64_t bufpool_room(const struct bufpool *pool)
{
    return pool->free_count + (pool->lacking ? 0 : pool->count_max - pool->count);
}

/* Frees half of what has lain unused since the last call. Returns true if there was any. */
bool bufpool_trim(struct bufpool *pool);

#endif
