#include "proxy/route_path.h"

#include <errno.h>

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes the escapes of one segment. */
static int decode(struct slice raw, struct slice *out, struct arena *arena)
{
    char *text = arena_alloc(arena, raw.len + 1);
    if (!text)
        return -ENOMEM;
    size_t len = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (c == '%') {
            bool whole = i + 2 < raw.len;
            int high = whole ? hex_value(raw.ptr[i + 1]) : -1;
            int low = whole ? hex_value(raw.ptr[i + 2]) : -1;
            if (high < 0 || low < 0 || high + low == 0)
                return -EINVAL;
            c = (char)(high * 16 + low);
            i += 2;
        }
        text[len++] = c;
    }
    *out = slice_of(text, len);
    return 0;
}

/* Adds one segment in normal form; the last one says whether the path ends in a slash. */
static int add(struct route_path *split, struct slice segment, bool last)
{
    bool dot = slice_equal(segment, SLICE("."));
    bool dots = slice_equal(segment, SLICE(".."));
    if (dots && split->count)
        split->count--;
    if (dot || dots || !segment.len) {
        if (!last) {
            split->plain = false;
            return 0;
        }
        split->plain &= !dot && !dots;
        segment = slice_of("", 0);
    }
    if (split->count == ROUTE_SEGMENTS_MAX)
        return -E2BIG;
    split->segments[split->count++] = segment;
    return 0;
}

int route_path_split(struct route_path *split, struct slice path, struct arena *arena)
{
    split->count = 0;
    split->plain = true;
    if (!path.len || path.ptr[0] != '/')
        return -EINVAL;
    const char *at = path.ptr + 1;
    const char *end = path.ptr + path.len;
    for (;;) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        const char *stop = slash ? slash : end;
        struct slice segment = slice_of(at, (size_t)(stop - at));
        int result = 0;
        if (memchr(segment.ptr, '%', segment.len)) {
            split->plain = false;
            result = decode(segment, &segment, arena);
        }
        if (result == 0)
            result = add(split, segment, !slash);
        if (result < 0 || !slash)
            return result;
        at = slash + 1;
    }
}

static size_t escaped_length(struct slice segment)
{
    size_t len = segment.len;
    for (size_t i = 0; i < segment.len; i++)
        len += segment.ptr[i] == '/' ? 2 : 0;
    return len;
}

static char *append_escaped(char *out, struct slice segment)
{
    for (size_t i = 0; i < segment.len; i++) {
        if (segment.ptr[i] == '/') {
            memcpy(out, "%2F", 3);
            out += 3;
        } else {
            *out++ = segment.ptr[i];
        }
    }
    return out;
}

struct slice route_path_rest(const struct route_path *split, unsigned index, struct arena *arena)
{
    if (index >= split->count)
        return slice_of("", 0);
    struct slice last = split->segments[split->count - 1];
    if (split->plain) {
        const char *start = split->segments[index].ptr;
        /* A final empty segment has no bytes in the path to point at. */
        if (last.len || split->count - index > 1) {
            const char *end = last.len ? last.ptr + last.len
                                       : split->segments[split->count - 2].ptr +
                                             split->segments[split->count - 2].len + 1;
            return slice_of(start, (size_t)(end - start));
        }
        return slice_of("", 0);
    }
    size_t size = 0;
    for (unsigned i = index; i < split->count; i++)
        size += escaped_length(split->segments[i]) + 1;
    char *text = arena_alloc(arena, size);
    if (!text)
        return slice_of(NULL, 0);
    char *out = text;
    for (unsigned i = index; i < split->count; i++) {
        if (i > index)
            *out++ = '/';
        out = append_escaped(out, split->segments[i]);
    }
    return slice_of(text, (size_t)(out - text));
}
