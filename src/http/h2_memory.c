#include "http/h2_memory.h"

#include <string.h>

#include "base/blocks.h"

static void *take(size_t size, void *unused)
{
    (void)unused;
    return blocks_take(size);
}

static void *take_zeroed(size_t count, size_t size, void *unused)
{
    (void)unused;
    size_t total;
    void *bytes = __builtin_mul_overflow(count, size, &total) ? NULL : blocks_take(total);
    return bytes ? memset(bytes, 0, total) : NULL;
}

static void *change(void *bytes, size_t size, void *unused)
{
    (void)unused;
    return blocks_change(bytes, size);
}

static void give(void *bytes, void *unused)
{
    (void)unused;
    blocks_give(bytes);
}

nghttp2_mem *h2_memory(void)
{
    static nghttp2_mem memory = {
        .malloc = take, .free = give, .calloc = take_zeroed, .realloc = change};
    return &memory;
}
