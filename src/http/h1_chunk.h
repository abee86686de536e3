/*
 * The chunked transfer coding (RFC 9112 section 7.1): a pure, strict, incremental decoder, and the
 * encoder's framing. Never suspends.
 *
 *   SIZE ─▶ EXTENSION ─▶ SIZE_LF ─▶ DATA ─▶ DATA_CR ─▶ DATA_LF ─▶ SIZE ...
 *                           └ size 0 ─▶ TRAILER lines ─▶ END
 */
#ifndef HTTP_H1_CHUNK_H
#define HTTP_H1_CHUNK_H

#include "base/slice.h"
#include "http/headers.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    H1_CHUNK_EXTENSION_MAX_BYTES = 256, /* of one chunk's extensions */
    H1_TRAILER_MAX_BYTES = 8192,        /* of the whole trailer section */
    H1_CHUNK_HEADER_MAX_BYTES = 20,     /* "ffffffffffffffff\r\n" with NUL */
};

/* Zero it to begin. */
struct h1_chunk_decoder {
    uint64_t left; /* of the present chunk's size or data */
    uint8_t state;
    uint8_t digits;             /* of the size line */
    uint16_t extension;         /* bytes of the present extension */
    uint64_t extensions_excess; /* bytes of extensions that no data has paid for, bounded */
    char *trailer;              /* trailer lines gathered so far, in the arena */
    uint32_t trailer_len;
    uint32_t trailer_capacity;
    struct arena *arena;      /* for trailers; set by the caller */
    struct headers *trailers; /* receives the fields at the end; may be NULL (then dropped) */
};

/*
 * Consumes from *input (which is moved past what was used). Returns
 *   1  and *data: a piece of body, borrowed from the input
 *   0  the body and its trailers have ended; *input is at the first byte behind
 *  -EAGAIN  all input was used and the body goes on
 *  -EPROTO  malformed: no digits, size over 2^63-1 or 16 digits, junk behind the size, bare LF or
 *           CR, a bad trailer field; -EMSGSIZE a bound above; -ENOMEM
 */
int h1_chunk_decode(struct h1_chunk_decoder *decoder, struct slice *input, struct slice *data);

/* Writes "<hex size>\r\n" and returns its length. */
unsigned h1_chunk_header(char out[H1_CHUNK_HEADER_MAX_BYTES], uint64_t size);

#endif
