/* Writes HTTP/1.1 heads in one pass. Pure: fields in, bytes out. Never suspends. */
#ifndef HTTP_H1_WRITE_H
#define HTTP_H1_WRITE_H

#include "http/message.h"

#include <stdbool.h>

/* A growing run of bytes in an arena. Zero it and set the arena. */
struct h1_out {
    struct arena *arena;
    char *data;
    size_t len;
    size_t capacity;
    bool failed; /* memory was exhausted; everything appended since is lost */
};

/* Makes room for `more` bytes at once; the appends below then never move memory. */
void h1_out_reserve(struct h1_out *out, size_t more);
void h1_out_append(struct h1_out *out, struct slice bytes);
void h1_out_number(struct h1_out *out, uint64_t number);
/* "name: value\r\n" */
void h1_out_field(struct h1_out *out, struct slice name, struct slice value);

/* Writes every field but the hop-by-hop ones: Connection and what it names, Keep-Alive,
 * Proxy-Connection, TE, Trailer (kept if keep_trailer), Transfer-Encoding, Upgrade,
 * Content-Length, Proxy-Authenticate and -Authorization stay, as they are end-to-end for a gateway
 * (RFC 9110 section 7.6.1). Fields in `skip` (a bit set over enum header_id) are left out as well.
 */
void h1_out_end_to_end_fields(struct h1_out *out, const struct headers *headers,
                              bool has_connection_options, uint64_t skip);

/* "HTTP/1.1 200 OK\r\n" */
void h1_out_status_line(struct h1_out *out, uint16_t status);

#endif
