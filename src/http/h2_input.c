#include "http/h2_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "io/wait.h"

enum { CHUNK_MIN_BYTES = 1024 }; /* small DATA frames share a chunk */

struct h2_chunk {
    struct h2_chunk *next;
    uint32_t len;
    uint32_t capacity;
    char bytes[];
};

void h2_input_init(struct h2_input *input, struct h2_transport *transport, int32_t stream_id)
{
    *input = (struct h2_input){.transport = transport, .stream_id = stream_id};
}

static void wake_reader(struct h2_input *input)
{
    if (input->reader)
        coro_wake(input->reader, 0);
}

/* The stream's window for bytes that are consumed. */
static void give_back(struct h2_input *input, size_t len)
{
    if (!len || !input->transport->session)
        return;
    nghttp2_session_consume_stream(input->transport->session, input->stream_id, len);
    h2_transport_flush(input->transport);
}

static bool append(struct h2_chunk *chunk, const void *bytes, size_t len)
{
    if (!chunk || chunk->capacity - chunk->len < len)
        return false;
    memcpy(chunk->bytes + chunk->len, bytes, len);
    chunk->len += (uint32_t)len;
    return true;
}

static int append_chunk(struct h2_input *input, const void *bytes, size_t len)
{
    size_t capacity = len < CHUNK_MIN_BYTES ? CHUNK_MIN_BYTES : len;
    struct h2_chunk *chunk = malloc(sizeof(*chunk) + capacity);
    if (!chunk)
        return -ENOMEM;
    *chunk = (struct h2_chunk){.capacity = (uint32_t)capacity};
    append(chunk, bytes, len);
    if (input->last)
        input->last->next = chunk;
    else
        input->first = chunk;
    input->last = chunk;
    return 0;
}

int h2_input_push(struct h2_input *input, const void *bytes, size_t len)
{
    input->received += len;
    if (input->max_bytes && input->received > input->max_bytes)
        h2_input_fail(input, -EMSGSIZE);
    if (input->released || input->error) {
        give_back(input, len);
        return 0;
    }
    if (!append(input->last, bytes, len) && append_chunk(input, bytes, len) < 0)
        return -ENOMEM;
    wake_reader(input);
    return 0;
}

void h2_input_end(struct h2_input *input)
{
    input->ended = true;
    wake_reader(input);
}

void h2_input_fail(struct h2_input *input, int error)
{
    if (!input->error && !input->ended)
        input->error = error;
    wake_reader(input);
}

/* --- Reading ---------------------------------------------------------------------------------- */

static void free_chunks(struct h2_chunk *chunk)
{
    while (chunk) {
        struct h2_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

static void return_lent(struct h2_input *input)
{
    free_chunks(input->lent);
    input->lent = NULL;
    give_back(input, input->lent_bytes);
    input->lent_bytes = 0;
}

static int lend(struct h2_input *input, struct slice *out, unsigned max)
{
    unsigned count = 0;
    struct h2_chunk *tail = NULL;
    input->lent = input->first;
    while (count < max && input->first) {
        tail = input->first;
        out[count++] = slice_of(tail->bytes, tail->len);
        input->lent_bytes += tail->len;
        input->first = tail->next;
    }
    if (tail)
        tail->next = NULL;
    if (!input->first)
        input->last = NULL;
    return (int)count;
}

static int await_chunk(struct h2_input *input, int64_t deadline)
{
    struct io *io = input->transport->stream->io;
    int64_t until = input->timeout_ms ? io_now_ms(io) + input->timeout_ms : deadline;
    if (deadline < until)
        until = deadline;
    while (!input->first && !input->ended && !input->error) {
        if (deadline == DEADLINE_NOW)
            return -ETIMEDOUT;
        input->reader = coro_self();
        int result = wait_wake(io, until);
        input->reader = NULL;
        if (result < 0)
            return result;
    }
    return 0;
}

int h2_input_read(struct h2_input *input, struct body *body, struct slice *out, unsigned max,
                  int64_t deadline)
{
    return_lent(input);
    int result = await_chunk(input, deadline);
    if (result < 0)
        return result;
    if (!input->first) {
        body->ended = !input->error;
        return input->error;
    }
    int count = lend(input, out, max);
    body->ended = input->ended && !input->first && !input->error;
    return count;
}

void h2_input_release(struct h2_input *input)
{
    size_t unread = 0;
    for (const struct h2_chunk *chunk = input->first; chunk; chunk = chunk->next)
        unread += chunk->len;
    free_chunks(input->first);
    input->first = input->last = NULL;
    input->released = true;
    input->lent_bytes += (uint32_t)unread;
    return_lent(input);
}

static int read_body(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    return h2_input_read(body->source, body, out, max, deadline);
}

static void release_body(struct body *body)
{
    h2_input_release(body->source);
}

static const struct body_ops input_ops = {.read = read_body, .release = release_body};

void h2_input_body(struct h2_input *input, struct body *body, int64_t length)
{
    body_init_empty(body);
    if (input->ended && !input->first)
        return;
    *body = (struct body){.ops = &input_ops, .source = input, .length = length};
}
