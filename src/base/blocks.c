#include "base/blocks.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer nothing is kept, so that uses after free are found. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS 0
#endif
#endif
#ifndef KEEPS
#define KEEPS 1
#endif

/* Kinds of blocks: small ones by their size in steps, then chunks of arenas, then those that hold a
 * TLS record. */
enum {
    SMALL_MIN_BYTES = 24, /* what malloc gives at least */
    SMALL_MAX_BYTES = 1032,
    STEP_BYTES = 16,
    SMALL_KINDS = (SMALL_MAX_BYTES - SMALL_MIN_BYTES) / STEP_BYTES + 1,
    CHUNK_MIN_BYTES = 2 * 1024,
    CHUNK_BYTES = 4 * 1024,
    RECORD_MIN_BYTES = 16 * 1024,
    RECORD_BYTES = 18 * 1024,
    CHUNK_KIND = SMALL_KINDS,
    RECORD_KIND,
    KINDS,
    NO_KIND = KINDS,
    KEPT_BYTES_MAX = 64 * 1024, /* of each kind */
    CHUNKS_KEPT_BYTES_MAX = 2 * 1024 * 1024,
};

/* In the first bytes of a block that is kept. */
struct block {
    struct block *next;
};

static struct {
    struct block *first;
    size_t bytes;
    size_t floor; /* the least that it was since the last trim, in bytes */
} kept[KINDS];

/* Every block of this kind is large enough. */
static unsigned kind_for(size_t size)
{
    if (size <= SMALL_MIN_BYTES)
        return 0;
    if (size <= SMALL_MAX_BYTES)
        return (unsigned)((size - SMALL_MIN_BYTES + STEP_BYTES - 1) / STEP_BYTES);
    if (size > CHUNK_MIN_BYTES && size <= CHUNK_BYTES)
        return CHUNK_KIND;
    return size > RECORD_MIN_BYTES && size <= RECORD_BYTES ? RECORD_KIND : NO_KIND;
}

static unsigned kind_of(size_t usable)
{
    if (usable >= SMALL_MIN_BYTES && usable <= SMALL_MAX_BYTES)
        return (unsigned)((usable - SMALL_MIN_BYTES) / STEP_BYTES);
    if (usable >= CHUNK_BYTES && usable < CHUNK_BYTES + STEP_BYTES)
        return CHUNK_KIND;
    return usable >= RECORD_BYTES && usable < RECORD_BYTES + STEP_BYTES ? RECORD_KIND : NO_KIND;
}

static size_t kept_bytes_max(unsigned kind)
{
    return kind == CHUNK_KIND ? CHUNKS_KEPT_BYTES_MAX : KEPT_BYTES_MAX;
}

static void *make(unsigned kind, size_t size)
{
    return malloc(kind == RECORD_KIND ? RECORD_BYTES : kind == CHUNK_KIND ? CHUNK_BYTES : size);
}

static struct block *pop(unsigned kind)
{
    struct block *block = kept[kind].first;
    kept[kind].first = block->next;
    kept[kind].bytes -= malloc_usable_size(block);
    if (kept[kind].bytes < kept[kind].floor)
        kept[kind].floor = kept[kind].bytes;
    return block;
}

void *blocks_take(size_t size)
{
    unsigned kind = kind_for(size);
    return kind < KINDS && kept[kind].first ? pop(kind) : make(kind, size);
}

void blocks_give(void *bytes)
{
    size_t usable = bytes && KEEPS ? malloc_usable_size(bytes) : 0;
    unsigned kind = kind_of(usable);
    if (kind == NO_KIND || kept[kind].bytes + usable > kept_bytes_max(kind)) {
        free(bytes);
        return;
    }
    struct block *block = bytes;
    block->next = kept[kind].first;
    kept[kind].first = block;
    kept[kind].bytes += usable;
}

void *blocks_change(void *bytes, size_t size)
{
    size_t usable = bytes ? malloc_usable_size(bytes) : 0;
    if (kind_of(usable) == NO_KIND)
        return bytes ? realloc(bytes, size) : blocks_take(size);
    if (size <= usable)
        return bytes;
    void *larger = blocks_take(size);
    if (!larger)
        return NULL;
    memcpy(larger, bytes, usable);
    blocks_give(bytes);
    return larger;
}

bool blocks_trim(void)
{
    bool any = false;
    for (unsigned kind = 0; kind < KINDS; kind++) {
        size_t left = kept[kind].bytes - (kept[kind].floor + 1) / 2;
        any |= kept[kind].floor > 0;
        while (kept[kind].bytes > left)
            free(pop(kind));
        kept[kind].floor = kept[kind].bytes;
    }
    return any;
}
