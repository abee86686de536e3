#include "l4/peek.h"

#include <errno.h>

#include "net/peek.h"

int l4_peek(struct stream *stream, size_t count, int64_t deadline)
{
    while (peek_len(stream) < count) {
        int result = stream->end == STREAM_OPEN ? peek_wait(stream, deadline) : stream->end;
        if (result <= 0)
            return result;
    }
    return 1;
}

/* Reads on behind what was read of it. */
static enum client_hello_verdict read_on(const struct stream *stream,
                                         struct client_hello_reader *reader)
{
    enum client_hello_verdict verdict = CLIENT_HELLO_MORE;
    while (verdict == CLIENT_HELLO_MORE) {
        struct slice piece = peek_at(stream, reader->total);
        if (!piece.len)
            break;
        verdict = client_hello_read(reader, piece);
    }
    return verdict;
}

int l4_read_hello(struct stream *stream, struct l4_hello *hello, int64_t deadline)
{
    struct client_hello_reader reader;
    enum client_hello_verdict verdict;
    client_hello_begin(&reader, hello->message);
    while ((verdict = read_on(stream, &reader)) == CLIENT_HELLO_MORE) {
        int result = stream->end == STREAM_OPEN ? peek_wait(stream, deadline) : stream->end;
        if (result == -ENOBUFS)
            return CLIENT_HELLO_TOO_LARGE;
        if (result <= 0)
            return result == STREAM_EOF ? -EPIPE : result;
    }
    hello->message_len = reader.message_len;
    struct slice message = slice_of((const char *)hello->message, reader.message_len);
    if (verdict == CLIENT_HELLO_DONE && client_hello_parse(message, &hello->hello) != 0)
        return CLIENT_HELLO_MALFORMED;
    return (int)verdict;
}

int l4_await_protocol(struct stream *stream, int64_t deadline)
{
    for (;;) {
        char bytes[L4_DETECT_MAX_BYTES];
        size_t len = peek_copy(stream, bytes, sizeof(bytes));
        enum l4_protocol protocol = l4_detect(slice_of(bytes, len));
        if (protocol != L4_PROTOCOL_UNDECIDED)
            return (int)protocol;
        int result = stream->end == STREAM_OPEN ? peek_wait(stream, deadline) : stream->end;
        if (result == -ETIMEDOUT || result == STREAM_EOF)
            return L4_PROTOCOL_UNDECIDED;
        if (result < 0)
            return result;
    }
}
