/*
 * The heads of the frames in a run of bytes of HTTP/2, cut however they may be (RFC 9113 section
 * 4.1). nghttp2 reports not every frame that it ignores; a guard has to hear of all. Pure.
 *
 *   | length (3) | type (1) | flags (1) | stream (4) | payload (length) |
 */
#ifndef HTTP_H2_SCAN_H
#define HTTP_H2_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { H2_FRAME_HEAD_BYTES = 9, H2_DEPENDENCY_BYTES = 4, H2_PREFACE_BYTES = 24 };

struct h2_frame_head {
    uint32_t length; /* of the payload */
    uint8_t type;
    uint8_t flags;
    int32_t stream_id;
    int32_t dependency; /* of a PRIORITY frame, which is looked at that far: a stream; else 0 */
};

struct h2_scan {
    uint32_t left; /* bytes of the present payload (or preface) to come */
    uint32_t have; /* bytes of the next head */
    uint8_t head[H2_FRAME_HEAD_BYTES + H2_DEPENDENCY_BYTES];
};

/* Prepares it; a server's input begins with a preface. */
void h2_scan_init(struct h2_scan *scan, bool preface);

/* Goes over bytes up to the end of a frame's head, of which *head then tells (*found), or to their
 * end. Returns how many bytes that are. */
size_t h2_scan_next(struct h2_scan *scan, const uint8_t *bytes, size_t len,
                    struct h2_frame_head *head, bool *found);

#endif
