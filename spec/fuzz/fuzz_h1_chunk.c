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
    uint32_t sum;          /* of the body's bytes and their places */
    uint32_t trailers_sum; /* of the trailers, likewise */
};

static uint32_t add_sum(uint32_t sum, struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        sum = sum * 31 + (unsigned char)bytes.ptr[i];
    return sum;
}

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
            outcome.sum = add_sum(outcome.sum, body);
            outcome.body_len += body.len;
        }
        outcome.used += count - input.len;
    }
    uint32_t at = 0;
    for (struct header *header; (header = headers_next(&trailers, &at));) {
        assert(header_name_valid(header->name) && header_value_valid(header->value));
        assert(header->id != HEADER_CONTENT_LENGTH && header->id != HEADER_TRANSFER_ENCODING);
        outcome.trailers_sum = add_sum(outcome.trailers_sum + 1, header->name);
        outcome.trailers_sum = add_sum(outcome.trailers_sum + 1, header->value);
    }
    arena_fini(&arena);
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 65536)
        return 0;
    struct outcome whole = decode(data, size, size + 1);
    for (size_t step = 1; step < 8; step += 3) {
        struct outcome steps = decode(data, size, step);
        assert(whole.result == steps.result);
        assert(whole.body_len == steps.body_len && whole.sum == steps.sum);
        assert(whole.trailers_sum == steps.trailers_sum);
        assert(whole.result != 0 || whole.used == steps.used);
    }
    return 0;
}
