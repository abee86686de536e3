#include "http/h2_scan.h"

#include <string.h>

void h2_scan_init(struct h2_scan *scan, bool preface)
{
    *scan = (struct h2_scan){.left = preface ? H2_PREFACE_BYTES : 0};
}

static struct h2_frame_head read_head(const uint8_t *bytes)
{
    return (struct h2_frame_head){
        .length = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2],
        .type = bytes[3],
        .flags = bytes[4],
        .stream_id = (int32_t)((uint32_t)(bytes[5] & 0x7f) << 24 | (uint32_t)bytes[6] << 16 |
                               (uint32_t)bytes[7] << 8 | bytes[8]),
    };
}

size_t h2_scan_next(struct h2_scan *scan, const uint8_t *bytes, size_t len,
                    struct h2_frame_head *head, bool *found)
{
    size_t at = scan->left < len ? scan->left : len;
    scan->left -= (uint32_t)at;
    size_t more = H2_FRAME_HEAD_BYTES - scan->have;
    if (more > len - at)
        more = len - at;
    memcpy(scan->head + scan->have, bytes + at, more);
    scan->have += (uint32_t)more;
    *found = scan->have == H2_FRAME_HEAD_BYTES;
    if (*found) {
        *head = read_head(scan->head);
        scan->left = head->length;
        scan->have = 0;
    }
    return at + more;
}
