#include "thrift/input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_FIRST_BYTES = 128, HEAD_KEPT_BYTES = 4096, LENGTH_BYTES = 4 };

void thrift_input_init(struct thrift_input *input, struct stream *stream,
                       const struct thrift_limits *limits)
{
    *input = (struct thrift_input){.stream = stream, .limits = *limits};
}

void thrift_input_fini(struct thrift_input *input)
{
    free(input->bytes);
    input->bytes = NULL;
    input->len = input->capacity = 0;
}

static int reserve(struct thrift_input *input, uint32_t bytes)
{
    if (bytes <= input->capacity)
        return 0;
    uint32_t capacity = bytes < HEAD_FIRST_BYTES ? HEAD_FIRST_BYTES : bytes;
    char *grown = realloc(input->bytes, capacity);
    if (!grown)
        return -ENOMEM;
    input->bytes = grown;
    input->capacity = capacity;
    return 0;
}

/* Copies from the stream until there are so many bytes of the head. */
static int gather(struct thrift_input *input, uint32_t needed)
{
    struct stream *stream = input->stream;
    if (reserve(input, needed) < 0)
        return -ENOMEM;
    while (input->len < needed) {
        if (!stream->first)
            return -EAGAIN;
        uint32_t count = needed - input->len;
        if (count > stream->first->len)
            count = stream->first->len;
        memcpy(input->bytes + input->len, stream->first->data, count);
        input->len += count;
        stream_consume(stream, count);
    }
    return 0;
}

int thrift_input_head(struct thrift_input *input, const char **why)
{
    uint32_t needed = input->len ? input->head.needed_bytes : LENGTH_BYTES;
    int result = 0;
    do {
        result = gather(input, needed);
        if (result < 0) {
            input->head.needed_bytes = needed;
            *why = "out of memory";
            return result;
        }
        result = thrift_parse(&input->head, input->bytes, input->len, &input->limits, why);
        needed = input->head.needed_bytes;
    } while (result == -EAGAIN);
    input->complete = result == 0 || result == -EMSGSIZE;
    input->left = input->complete ? input->head.body_bytes : 0;
    return result;
}

struct slice thrift_input_head_bytes(const struct thrift_input *input)
{
    return slice_of(input->bytes, input->head.head_bytes);
}

static void give_back(struct thrift_input *input)
{
    if (input->lent)
        stream_consume(input->stream, input->lent);
    input->lent = 0;
}

uint32_t thrift_input_take(struct thrift_input *input, char *to, uint32_t max)
{
    struct stream *stream = input->stream;
    uint32_t taken = 0;
    give_back(input);
    if (max > input->left)
        max = input->left;
    while (stream->first && taken < max) {
        uint32_t count = max - taken < stream->first->len ? max - taken : stream->first->len;
        memcpy(to + taken, stream->first->data, count);
        stream_consume(stream, count);
        taken += count;
    }
    input->left -= taken;
    return taken;
}

bool thrift_input_skip(struct thrift_input *input)
{
    struct stream *stream = input->stream;
    give_back(input);
    while (stream->first && input->left) {
        uint32_t count = input->left < stream->first->len ? input->left : stream->first->len;
        stream_consume(stream, count);
        input->left -= count;
    }
    return !input->left;
}

void thrift_input_next(struct thrift_input *input)
{
    give_back(input);
    if (input->capacity > HEAD_KEPT_BYTES)
        thrift_input_fini(input);
    input->len = 0;
    input->complete = false;
}

bool thrift_input_inside(const struct thrift_input *input)
{
    return input->len > 0;
}

int thrift_input_read(struct thrift_input *input, struct slice *out, int64_t deadline)
{
    struct stream *stream = input->stream;
    give_back(input);
    if (!input->left)
        return 0;
    int result = stream_wait_readable(stream, deadline);
    if (result <= 0)
        return result < 0 ? result : -ECONNRESET;
    uint32_t count = input->left < stream->first->len ? input->left : stream->first->len;
    *out = slice_of((const char *)stream->first->data, count);
    input->lent = count;
    input->left -= count;
    return 1;
}
