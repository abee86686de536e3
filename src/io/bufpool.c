#include "io/bufpool.h"

#include <assert.h>
#include <stdlib.h>

/* A block that nobody owns is poisoned, so that reading one after its release is found by ASan. */
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, size)   ((void)(memory), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(memory, size) ((void)(memory), (void)(size))
#endif

enum { DROPPED_MAX = 256 }; /* by one trim, which is to take less than a millisecond */

static struct io_buf *add_block(struct bufpool *pool);
static struct io_buf *pop(struct bufpool *pool);

void bufpool_init(struct bufpool *pool, uint32_t buffer_bytes, uint64_t total_bytes_max)
{
    uint64_t count_max = total_bytes_max / buffer_bytes;
    *pool = (struct bufpool){.buffer_bytes = buffer_bytes, .count_max = count_max ? count_max : 1};
}

void bufpool_fini(struct bufpool *pool)
{
    assert(pool->free_count == pool->count);
    while (pool->free)
        free(pop(pool));
    *pool = (struct bufpool){0};
}

struct io_buf *bufpool_get(struct bufpool *pool)
{
    struct io_buf *buf = pool->free ? pop(pool) : add_block(pool);
    if (!buf)
        return NULL;
    if (pool->free_count < pool->free_floor)
        pool->free_floor = pool->free_count;
    ASAN_UNPOISON_MEMORY_REGION(buf->base, pool->buffer_bytes);
    buf->data = buf->base;
    buf->compact = false;
    buf->len = 0;
    buf->next = NULL;
    return buf;
}

void bufpool_put(struct bufpool *pool, struct io_buf *buf)
{
    ASAN_POISON_MEMORY_REGION(buf->base, pool->buffer_bytes);
    buf->next = pool->free;
    pool->free = buf;
    pool->free_count++;
}

bool bufpool_trim(struct bufpool *pool)
{
    uint64_t drop = (pool->free_floor + 1) / 2;
    if (drop > DROPPED_MAX)
        drop = DROPPED_MAX;
    for (uint64_t i = 0; i < drop; i++) {
        free(pop(pool));
        pool->count--;
    }
    pool->free_floor = pool->free_count;
    return drop > 0;
}

static struct io_buf *pop(struct bufpool *pool)
{
    struct io_buf *buf = pool->free;
    pool->free = buf->next;
    pool->free_count--;
    return buf;
}

/* Header and bytes are one allocation: the first bytes lie beside the header, and the odd size
 * keeps the blocks from meeting in the same few sets of the cache. */
static struct io_buf *add_block(struct bufpool *pool)
{
    if (pool->count >= pool->count_max)
        return NULL;
    struct io_buf *buf = malloc(sizeof(*buf) + pool->buffer_bytes);
    pool->lacking = !buf;
    if (!buf)
        return NULL;
    buf->base = (char *)(buf + 1);
    buf->datagram = pool->datagrams;
    pool->count++;
    return buf;
}
