/* Heads of Thrift messages: more is asked for only within the head and never once it is there, and
 * what is read can be written and read again. */
#include "fuzz.h"

#include "thrift/exchange.h"

#include <assert.h>
#include <errno.h>

static const struct thrift_limits limits = {
    .frame_max_bytes = 1 << 24, .head_max_bytes = 32768, .field_count_max = 100};

static void write_again(struct slice bytes, const struct thrift_head *head)
{
    struct arena arena;
    struct headers fields;
    struct headers again;
    struct slice out;
    const char *why;
    struct thrift_head written;
    arena_init(&arena);
    headers_init(&fields, &arena);
    headers_init(&again, &arena);
    struct thrift_message *message = thrift_message_read(&arena, bytes, &limits, &fields);
    assert(message);
    assert(thrift_write_head(&arena, message, &fields, head->body_bytes, &out) == 0);
    int result = thrift_parse(&written, out.ptr, out.len, &limits, &why);
    assert(result == 0 || result == -EMSGSIZE);
    assert(written.head_bytes == out.len && written.body_bytes == head->body_bytes);
    assert(written.seqid == head->seqid && slice_equal(written.method, head->method));
    struct thrift_message *second = thrift_message_read(&arena, out, &limits, &again);
    assert(result != 0 || (second && again.count == fields.count));
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct thrift_head head;
    const char *why;
    if (size > 65536)
        return 0;
    struct slice bytes = slice_of((const char *)data, size);
    int result = thrift_parse(&head, bytes.ptr, bytes.len, &limits, &why);
    assert(result == 0 || result == -EAGAIN ||
           (why[0] && (result == -EPROTO || result == -EMSGSIZE)));
    if (result == -EAGAIN) {
        assert(head.needed_bytes > size && head.needed_bytes <= 4 * UINT16_MAX + 2048);
        return 0;
    }
    if (result == -EPROTO)
        return 0;
    assert(head.head_bytes <= size && head.method.len > 0);
    struct thrift_head cut;
    for (size_t len = 0; len < head.head_bytes; len += 1 + head.head_bytes / 64) {
        assert(thrift_parse(&cut, bytes.ptr, len, &limits, &why) == -EAGAIN);
        assert(cut.needed_bytes > len && cut.needed_bytes <= head.head_bytes);
    }
    if (result == 0)
        write_again(slice_of(bytes.ptr, head.head_bytes), &head);
    return 0;
}
