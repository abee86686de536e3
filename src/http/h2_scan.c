#include "http/h2_scan.h"

#include <nghttp2/nghttp2.h>
#include <string.h>

void h2_scan_init(struct h2_scan *scan, bool preface)
{
    *scan = (struct h2_scan){.left = preface ? H2_PREFACE_BYTES : 0};
}

static int32_t read_stream_id(const uint8_t *bytes)
{
    return (int32_t)((uint32_t)(bytes[0] & 0x7f) << 24 | (uint32_t)bytes[1] << 16 |
                     (uint32_t)bytes[2] << 8 | bytes[3]);
}

static uint32_t read_length(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2];
}

static struct h2_frame_head read_head(const uint8_t *bytes)
{
    return (struct h2_frame_head){
        .length = read_length(bytes),
        .type = bytes[3],
        .flags = bytes[4],
        .stream_id = read_stream_id(bytes + 5),
    };
}

/* How many bytes are to be looked at together. */
static uint32_t wanted(const struct h2_scan *scan)
{
    bool dependent = scan->have >= H2_FRAME_HEAD_BYTES && scan->head[3] == NGHTTP2_PRIORITY &&
                     read_length(scan->head) >= H2_DEPENDENCY_BYTES;
    return H2_FRAME_HEAD_BYTES + (dependent ? H2_DEPENDENCY_BYTES : 0);
}

size_t h2_scan_next(struct h2_scan *scan, const uint8_t *bytes, size_t len,
                    struct h2_frame_head *head, bool *found)
{
    size_t at = scan->left < len ? scan->left : len;
    scan->left -= (uint32_t)at;
    while (at < len && scan->have < wanted(scan)) {
        size_t more = wanted(scan) - scan->have;
        if (more > len - at)
            more = len - at;
        memcpy(scan->head + scan->have, bytes + at, more);
        scan->have += (uint32_t)more;
        at += more;
    }
    *found = scan->have == wanted(scan);
    if (*found) {
        *head = read_head(scan->head);
        scan->left = head->length - (scan->have - H2_FRAME_HEAD_BYTES);
        if (scan->have > H2_FRAME_HEAD_BYTES)
            head->dependency = read_stream_id(scan->head + H2_FRAME_HEAD_BYTES);
        scan->have = 0;
    }
    return at;
}
