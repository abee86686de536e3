/* Field sections of HTTP/2 from struct headers, for requests and responses. Never suspends. */
#ifndef HTTP_H2_FIELDS_H
#define HTTP_H2_FIELDS_H

#include "http/headers.h"

#include <nghttp2/nghttp2.h>
#include <stdbool.h>

/* A growing field section in an arena. Zero it and set the arena. Names and values are borrowed:
 * the session copies them when they are submitted, and writes names in lower case then. */
struct h2_fields {
    struct arena *arena;
    nghttp2_nv *items;
    size_t count;
    size_t capacity;
    bool failed; /* memory was exhausted */
};

void h2_fields_add(struct h2_fields *fields, struct slice name, struct slice value);

/* Adds every field but those of one connection (RFC 9113 section 8.2.2): Connection and what it
 * names, Keep-Alive, Proxy-Connection, Transfer-Encoding, Upgrade, Host (which :authority carries),
 * TE other than "trailers", and those whose ids are in `skip` (bits). Content-Length stays. */
void h2_fields_add_end_to_end(struct h2_fields *fields, const struct headers *headers,
                              uint64_t skip);

#endif
