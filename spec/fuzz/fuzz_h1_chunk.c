/* The chunked coding: whole or byte by byte the result is the same, and trailers are clean. */
#include "fuzz.h"

#include "http/h1_chunk.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct outcome {
    int result;
    size_t used;
    size_t body_len;
    uint32_t sum; /* of the body's bytes and their places */
};

static struct outcome decode(const uint8_t *data, size_t size, size_t step)
{
    struct arena arena;
    struct headers trailers;
    struct outcome outcome = {.result = -EAGAIN};
    arena_init(&arena);
    headers_init(&trailers, &arena);
    struct h1_chunk_decoder decoder = {.arena = &arena, .trailers = &trailers};
    while (outcome.result == -EAGAIN && outcome.used < size) {
        size_t count = size - outcome.used < step ? size - outcome.used : step;
        struct slice input = slice_of((const char *)data + outcome.used, count);
        struct slice body;
        while ((outcome.result = h1_chunk_decode(&decoder, &input, &body)) == 1) {
            assert(body.len > 0);
            for (size_t i = 0; i < body.len; i++)
                outcome.sum = outcome.sum * 31 + (unsigned char)body.ptr[i];
            outcome.body_len += body.len;
        }
        outcome.used += count - input.len;
    }
    uint32_t at = 0;
    for (struct header *header; (header = headers_next(&trailers, &at));)
        assert(header_name_valid(header->name) && header_value_valid(header->value));
    arena_fini(&arena);
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 65536)
        return 0;
    struct outcome whole = decode(data, size, size + 1);
    struct outcome bytes = decode(data, size, 1);
    assert(whole.result == bytes.result);
    assert(whole.body_len == bytes.body_len && whole.sum == bytes.sum);
    assert(whole.result != 0 || whole.used == bytes.used);
    return 0;
}
