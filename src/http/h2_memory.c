#include "http/h2_memory.h"

#include <stddef.h>
#include <stdint.h>
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

enum {
    STEP_BYTES = 64, /* sizes are multiples of that */
    KINDS = 9,       /* up to 512 bytes; larger ones are malloc's */
    KEPT_MAX = 512,  /* blocks of each size */
};

/* In front of what the library gets. */
struct block {
    _Alignas(max_align_t) size_t size; /* of what follows */
    struct block *next;                /* while it is kept */
};

static struct {
    struct block *first;
    unsigned count;
} kept[KINDS]; /* by size / STEP_BYTES */

static void *take(size_t size, void *unused)
{
    (void)unused;
    size_t kind = size / STEP_BYTES + (size % STEP_BYTES != 0);
    struct block *block;
    if (kind < KINDS) {
        size = kind * STEP_BYTES;
        block = kept[kind].first;
        if (block) {
            kept[kind].first = block->next;
            kept[kind].count--;
            return block + 1;
        }
    }
    if (size > SIZE_MAX - sizeof(*block))
        return NULL;
    block = malloc(sizeof(*block) + size);
    if (!block)
        return NULL;
    block->size = size;
    return block + 1;
}

static void give(void *bytes, void *unused)
{
    (void)unused;
    struct block *block = bytes ? (struct block *)bytes - 1 : NULL;
    size_t kind = block ? block->size / STEP_BYTES : 0;
    if (!KEEPS || !block || kind >= KINDS || kept[kind].count == KEPT_MAX) {
        free(block);
        return;
    }
    block->next = kept[kind].first;
    kept[kind].first = block;
    kept[kind].count++;
}

static void *take_zeroed(size_t count, size_t size, void *unused)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    void *bytes = take(total, unused);
    if (bytes)
        memset(bytes, 0, total);
    return bytes;
}

static void *change(void *bytes, size_t size, void *unused)
{
    const struct block *block = bytes ? (struct block *)bytes - 1 : NULL;
    if (block && size <= block->size)
        return bytes;
    void *larger = take(size, unused);
    if (!larger || !block)
        return larger;
    memcpy(larger, bytes, block->size);
    give(bytes, unused);
    return larger;
}

nghttp2_mem *h2_memory(void)
{
    static nghttp2_mem memory = {
        .malloc = take, .free = give, .calloc = take_zeroed, .realloc = change};
    return &memory;
}
