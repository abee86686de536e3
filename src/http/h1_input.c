#include "http/h1_input.h"

#include "base/clock.h"
#include "net/stream_splice.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SPLICE_BYTES_MIN = 256 << 10 }; /* with fewer to come, splicing does not pay */

void h1_input_init(struct h1_input *input, struct stream *stream, bool is_request)
{
    *input = (struct h1_input){.stream = stream, .is_request = is_request};
}

/* Does splicing what is left of the body pay, and is it possible? */
static bool may_splice(const struct h1_input *input)
{
    return input->framing == H1_BODY_LENGTH && input->left >= SPLICE_BYTES_MIN &&
           !input->stream->filter;
}

static void forget_partial(struct h1_input *input)
{
    free(input->partial);
    input->partial = NULL;
    input->partial_len = input->partial_capacity = 0;
    input->scan = (struct h1_scan){0};
}

void h1_input_fini(struct h1_input *input)
{
    forget_partial(input);
    h1_input_release_held(input);
}

bool h1_input_inside_head(const struct h1_input *input)
{
    return input->partial_len > 0;
}

/* Appends to the partial head. The scan has bounded its length already. */
static int gather(struct h1_input *input, const char *bytes, uint32_t len)
{
    uint32_t needed = input->partial_len + len;
    if (needed > input->partial_capacity) {
        uint32_t capacity = needed < 512 ? 512 : needed * 2;
        char *grown = realloc(input->partial, capacity);
        if (!grown)
            return -ENOMEM;
        input->partial = grown;
        input->partial_capacity = capacity;
    }
    memcpy(input->partial + input->partial_len, bytes, len);
    input->partial_len = needed;
    return 0;
}

/* Looks at the oldest queued buffer. Returns H1_INPUT_HEAD, -EAGAIN when more is needed, or an
 * error as h1_input_read_head does. */
static int try_head(struct h1_input *input, struct arena *arena, const struct h1_limits *limits,
                    struct slice *head, int *refusal, const char **why)
{
    struct stream *stream = input->stream;
    struct io_buf *buf = stream->first;
    uint32_t before = input->partial_len;
    uint32_t fresh = buf->len;
    const char *bytes = buf->data;
    if (before) {
        /* No more than the head may hold is gathered; what is behind stays in the queue. */
        uint32_t room = limits->head_max_bytes + 1 - before;
        fresh = fresh < room ? fresh : room;
        if (gather(input, buf->data, fresh) != 0)
            return -ENOMEM;
        bytes = input->partial;
    }
    int len = h1_head_scan(&input->scan, bytes, before + fresh, limits, input->is_request, why);
    if (len < 0) {
        *refusal = len;
        return H1_INPUT_REFUSED;
    }
    if (len == H1_INCOMPLETE) {
        if (!before && gather(input, buf->data, fresh) != 0)
            return -ENOMEM;
        stream_consume(stream, fresh);
        return -EAGAIN;
    }
    *head = arena_copy(arena, slice_of(bytes, (size_t)len));
    if (!head->ptr)
        return -ENOMEM;
    stream_consume(stream, (uint32_t)len - before);
    forget_partial(input);
    return H1_INPUT_HEAD;
}

int h1_input_read_head(struct h1_input *input, struct arena *arena, const struct h1_limits *limits,
                       struct slice *head, int *refusal, const char **why, int64_t deadline)
{
    h1_input_release_held(input);
    for (;;) {
        int result = stream_wait_readable(input->stream, deadline);
        if (result == STREAM_EOF)
            return input->partial_len ? -ECONNRESET : H1_INPUT_END;
        if (result < 0)
            return result;
        result = try_head(input, arena, limits, head, refusal, why);
        if (result != -EAGAIN)
            return result;
    }
}

void h1_input_begin_body(struct h1_input *input, const struct h1_head *head, struct body *body,
                         const struct body_ops *ops, struct headers *trailers, struct arena *arena)
{
    input->framing = head->framing;
    input->left = head->content_length;
    input->seen_bytes = 0;
    input->failed = 0;
    input->ended = false;
    if (head->framing == H1_BODY_NONE ||
        (head->framing == H1_BODY_LENGTH && head->content_length == 0)) {
        input->ended = true;
        body_init_empty(body);
        return;
    }
    /* What follows on this connection will be as long, if experience is anything to go by. */
    input->stream->piecewise = !input->is_request && may_splice(input);
    if (head->framing == H1_BODY_CHUNKED) {
        input->chunks = arena_zalloc(arena, sizeof(*input->chunks));
        if (input->chunks)
            *input->chunks = (struct h1_chunk_decoder){.arena = arena, .trailers = trailers};
        else
            input->failed = -ENOMEM;
    }
    *body = (struct body){
        .ops = ops,
        .source = input,
        .length = head->framing == H1_BODY_LENGTH ? (int64_t)head->content_length : -1,
    };
}

void h1_input_release_held(struct h1_input *input)
{
    while (input->held) {
        struct io_buf *buf = input->held;
        input->held = buf->next;
        io_buf_release(input->stream->io, buf);
    }
}

/* The front buffer has been used up: it is kept until the next read, as slices point into it. */
static void hold_front(struct h1_input *input)
{
    struct io_buf *buf = stream_take(input->stream);
    buf->next = input->held;
    input->held = buf;
}

/* Takes one slice of plain bytes, at most `limit`, from the front buffer. */
static struct slice take_plain(struct h1_input *input, uint64_t limit)
{
    struct io_buf *buf = input->stream->first;
    uint32_t len = buf->len < limit ? buf->len : (uint32_t)limit;
    struct slice piece = slice_of(buf->data, len);
    buf->data += len;
    buf->len -= len;
    if (!buf->len)
        hold_front(input);
    return piece;
}

/* The readers below fill slices from what is queued. They return the count, 0 if nothing of the
 * body was there, or a negative errno; *ended is set when the body has ended. */
static int read_length(struct h1_input *input, struct slice *out, unsigned max, bool *ended)
{
    unsigned count = 0;
    while (count < max && input->left && input->stream->first) {
        out[count] = take_plain(input, input->left);
        input->left -= out[count++].len;
    }
    *ended = input->left == 0;
    return (int)count;
}

static int read_until_close(struct h1_input *input, struct slice *out, unsigned max, bool *ended)
{
    unsigned count = 0;
    while (count < max && input->stream->first)
        out[count++] = take_plain(input, UINT64_MAX);
    *ended = !input->stream->first && input->stream->end == STREAM_EOF;
    return (int)count;
}

static int read_chunked(struct h1_input *input, struct slice *out, unsigned max, bool *ended)
{
    unsigned count = 0;
    while (count < max && input->stream->first) {
        struct io_buf *buf = input->stream->first;
        struct slice rest = slice_of(buf->data, buf->len);
        int result = h1_chunk_decode(input->chunks, &rest, &out[count]);
        buf->data = (char *)rest.ptr;
        buf->len = (uint32_t)rest.len;
        if (!buf->len)
            hold_front(input);
        if (result == 0) {
            *ended = true;
            break;
        }
        if (result > 0)
            count++;
        else if (result != -EAGAIN)
            return result;
    }
    return (int)count;
}

static int read_queued(struct h1_input *input, struct slice *out, unsigned max, bool *ended)
{
    switch (input->framing) {
    case H1_BODY_LENGTH:
        return read_length(input, out, max, ended);
    case H1_BODY_CHUNKED:
        return read_chunked(input, out, max, ended);
    case H1_BODY_UNTIL_CLOSE:
        return read_until_close(input, out, max, ended);
    case H1_BODY_NONE:
        break;
    }
    *ended = true;
    return 0;
}

static int64_t read_deadline(const struct h1_input *input, int64_t deadline)
{
    if (!input->timeout_ms || deadline == DEADLINE_NOW)
        return deadline;
    int64_t own = io_now_ms(input->stream->io) + input->timeout_ms;
    return own < deadline ? own : deadline;
}

/* What was spliced is to be read now. */
static void end_splicing(struct h1_input *input)
{
    if (input->stream->paused)
        stream_resume(input->stream);
}

/* Waits until something of the body can be read; an end of the stream here cuts the body short,
 * unless the end is what frames it. */
static int wait_body(struct h1_input *input, int64_t deadline)
{
    end_splicing(input);
    int result = stream_wait_readable(input->stream, read_deadline(input, deadline));
    if (result == STREAM_EOF && input->framing != H1_BODY_UNTIL_CLOSE)
        return -ECONNRESET;
    return result < 0 ? result : 0;
}

static int count_bytes(struct h1_input *input, const struct slice *out, int count)
{
    for (int i = 0; i < count; i++)
        input->seen_bytes += out[i].len;
    return input->max_bytes && input->seen_bytes > input->max_bytes ? -EMSGSIZE : count;
}

/* Reads up to `max` slices; 0 at the end. */
static int read_some(struct h1_input *input, struct slice *out, unsigned max, int64_t deadline)
{
    assert(input->failed <= 0);
    h1_input_release_held(input);
    if (input->failed)
        return input->failed;
    int result = 0;
    while (!input->ended) {
        result = read_queued(input, out, max, &input->ended);
        if (result > 0)
            result = count_bytes(input, out, result);
        if (result || input->ended)
            break;
        result = wait_body(input, deadline);
        if (result < 0)
            break;
        h1_input_release_held(input); /* framing alone was read: nobody has seen it */
    }
    if (result < 0 && result != -ETIMEDOUT && result != -ECANCELED)
        input->failed = result;
    if (input->ended)
        end_splicing(input);
    return result;
}

int h1_input_read_body(struct h1_input *input, struct body *body, struct slice *out, unsigned max,
                       int64_t deadline)
{
    int result = read_some(input, out, max, deadline);
    body->ended = input->ended;
    return result;
}

int h1_input_splice_body(struct h1_input *input, struct body *body, struct io_pipe **pipe,
                         int64_t deadline)
{
    struct stream *stream = input->stream;
    h1_input_release_held(input);
    if (input->failed || (!stream->paused && !may_splice(input)))
        return -EOPNOTSUPP;
    int count = stream_splice_in(stream, input->left, pipe, read_deadline(input, deadline));
    if (count <= 0)
        return count;
    input->left -= (uint64_t)count;
    input->seen_bytes += (uint64_t)count;
    input->ended = body->ended = input->left == 0;
    if (input->ended)
        end_splicing(input);
    return count;
}

int h1_input_discard_body(struct h1_input *input, uint64_t max_bytes, int64_t deadline)
{
    uint64_t dropped = 0;
    while (!input->ended) {
        struct slice pieces[BODY_SLICES_MAX] = {{0}};
        int count = read_some(input, pieces, BODY_SLICES_MAX, deadline);
        if (count < 0)
            return count;
        for (int i = 0; i < count; i++)
            dropped += pieces[i].len;
        if (dropped > max_bytes)
            return -EMSGSIZE;
    }
    h1_input_release_held(input);
    return 0;
}
