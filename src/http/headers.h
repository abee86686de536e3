/*
 * Header fields: an ordered multi-map with case-insensitive names (RFC 9110 section 5), small
 * enough that a linear search wins. Fields that the program itself asks for carry an id, found once
 * when the field is added, so that forwarding never compares names. Never suspends.
 */
#ifndef HTTP_HEADERS_H
#define HTTP_HEADERS_H

#include "base/arena.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum header_id {
    HEADER_OTHER, /* none of those below */
    HEADER_ACCEPT_ENCODING,
    HEADER_AUTHORIZATION,
    HEADER_CONNECTION,
    HEADER_CONTENT_ENCODING,
    HEADER_CONTENT_LENGTH,
    HEADER_CONTENT_TYPE,
    HEADER_COOKIE,
    HEADER_DATE,
    HEADER_EXPECT,
    HEADER_FORWARDED,
    HEADER_HOST,
    HEADER_KEEP_ALIVE,
    HEADER_LOCATION,
    HEADER_PROXY_AUTHENTICATE,
    HEADER_PROXY_AUTHORIZATION,
    HEADER_PROXY_CONNECTION,
    HEADER_RETRY_AFTER,
    HEADER_SERVER,
    HEADER_SET_COOKIE,
    HEADER_TE,
    HEADER_TRAILER,
    HEADER_TRANSFER_ENCODING,
    HEADER_UPGRADE,
    HEADER_VIA,
    HEADER_X_FORWARDED_FOR,
    HEADER_X_FORWARDED_HOST,
    HEADER_X_FORWARDED_PROTO,
    HEADER_ID_COUNT
};

struct header {
    struct slice name;  /* as received or set; case kept */
    struct slice value; /* without surrounding white space */
    uint16_t id;        /* enum header_id */
    bool removed;       /* a hole: skipped by every function here */
};

struct headers {
    struct header *items; /* in the arena */
    uint32_t count;       /* of items, holes included */
    uint32_t capacity;
    uint64_t present;    /* ids (bits) of which there may be fields; of the others there is none */
    struct arena *arena; /* borrowed */
};

void headers_init(struct headers *headers, struct arena *arena);

/* The id of a field name. */
enum header_id header_id_of(struct slice name);

/* Appends a field; name and value are borrowed and must live as long as the arena (use
 * arena_copy). Returns 0 or -ENOMEM. */
int headers_add(struct headers *headers, struct slice name, struct slice value);

/* As headers_add for a name whose id is known already. */
int headers_add_id(struct headers *headers, enum header_id id, struct slice name,
                   struct slice value);

/* First field of that name after `from` (NULL: from the start), or NULL. */
struct header *headers_find(const struct headers *headers, struct slice name,
                            const struct header *from);
struct header *headers_find_id(const struct headers *headers, enum header_id id,
                               const struct header *from);

/* Value of the first field of that name; NULL ptr if there is none. */
struct slice headers_get(const struct headers *headers, struct slice name);
struct slice headers_get_id(const struct headers *headers, enum header_id id);

/* Removes every field of that name. Returns how many there were. */
unsigned headers_remove(struct headers *headers, struct slice name);
unsigned headers_remove_id(struct headers *headers, enum header_id id);

/* Removes every field that the comma-separated list in the fields of an id names (Connection, RFC
 * 9110 section 7.6.1), but those whose ids are in `keep` (bits). */
void headers_remove_listed(struct headers *headers, enum header_id list, uint64_t keep);

/* Replaces all fields of that name by one, in the place of the first. Borrowed as in headers_add.
 * Returns 0 or -ENOMEM. */
int headers_set(struct headers *headers, struct slice name, struct slice value);

/* First field that is not a hole at or after index *at, which is moved past it; NULL at the end. */
struct header *headers_next(const struct headers *headers, uint32_t *at);

/* True if the comma-separated list in all fields of that id has the token (ASCII case ignored). */
bool headers_has_token(const struct headers *headers, enum header_id id, struct slice token);

/* Is it a valid field name (a token, RFC 9110 section 5.6.2)? A valid field value (visible bytes,
 * inner SP and HTAB, obs-text; no CR, LF, NUL or other control, RFC 9110 section 5.5)? */
bool header_name_valid(struct slice name);
bool header_value_valid(struct slice value);

/* May it stand in trailers? Not what would change how a message is framed, routed, trusted or
 * answered (RFC 9110 section 6.5.1): who merges trailers with the head must not read an
 * X-Forwarded-For there that the client made up. */
bool header_may_trail(enum header_id id);

#endif
