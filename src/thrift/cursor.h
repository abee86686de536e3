/* Reads numbers and texts from bytes that may end early, for the parsers of this folder. Pure. */
#ifndef THRIFT_CURSOR_H
#define THRIFT_CURSOR_H

#include "base/slice.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

struct cursor {
    const unsigned char *bytes;
    size_t at;
    size_t len;    /* bytes that are there */
    size_t end;    /* where what is parsed ends, there or not */
    size_t needed; /* with -EAGAIN: how many there must be */
    int error;     /* the first: -EAGAIN or -EPROTO; everything reads as 0 behind it */
};

static inline bool cursor_has(struct cursor *cursor, size_t count)
{
    if (cursor->error)
        return false;
    if (count > cursor->end - cursor->at)
        cursor->error = -EPROTO;
    else if (count > cursor->len - cursor->at) {
        cursor->error = -EAGAIN;
        cursor->needed = cursor->at + count;
    }
    return !cursor->error;
}

/* A number of `count` bytes, the highest first. */
static inline uint32_t cursor_number(struct cursor *cursor, unsigned count)
{
    uint32_t value = 0;
    if (!cursor_has(cursor, count))
        return 0;
    for (unsigned i = 0; i < count; i++)
        value = value << 8 | cursor->bytes[cursor->at++];
    return value;
}

/* A number of up to 32 bits in groups of 7, the lowest first. */
static inline uint32_t cursor_varint(struct cursor *cursor)
{
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint32_t byte = cursor_number(cursor, 1);
        if (cursor->error)
            return 0;
        if (shift == 28 && byte > 0x0f)
            break;
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    cursor->error = -EPROTO;
    return 0;
}

static inline struct slice cursor_text(struct cursor *cursor, size_t len)
{
    if (!cursor_has(cursor, len))
        return slice_of(NULL, 0);
    struct slice text = slice_of((const char *)cursor->bytes + cursor->at, len);
    cursor->at += len;
    return text;
}

#endif
