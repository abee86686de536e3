/*
 * HTTP/1.x heads: pure functions over complete heads. llhttp in strict mode reads the grammar and a
 * validator of ours refuses what it lets through (RFC 9112). Never suspends.
 *
 *   receive ──▶ h1_head_scan (is the head complete? is every line clean?)
 *                    │ length
 *                    ▼
 *               h1_parse_request / h1_parse_response ──▶ slices into the head's bytes
 */
#ifndef HTTP_H1_PARSE_H
#define HTTP_H1_PARSE_H

#include "http/message.h"

#include <stdbool.h>
#include <stdint.h>

struct h1_limits {
    uint32_t line_max_bytes;   /* first line -> H1_LINE_TOO_LONG */
    uint32_t head_max_bytes;   /* whole head -> H1_HEAD_TOO_LONG */
    uint32_t header_count_max; /* -> H1_TOO_MANY_HEADERS */
};

/* Why a head was refused. Negative, so that they share a return value with lengths. */
enum h1_refusal {
    H1_INCOMPLETE = 0,
    H1_MALFORMED = -1,           /* 400 */
    H1_LINE_TOO_LONG = -2,       /* 414 */
    H1_HEAD_TOO_LONG = -3,       /* 431 */
    H1_TOO_MANY_HEADERS = -4,    /* 431 */
    H1_BAD_VERSION = -5,         /* 505 for HTTP/2.0 and up in a well-formed line, else 400 */
    H1_BAD_TRANSFER_CODING = -6, /* 400 */
    H1_NO_MEMORY = -7,
};

/* Progress of a scan; zero it before the first byte of a head. */
struct h1_scan {
    uint32_t scanned;    /* bytes looked at */
    uint32_t line_start; /* offset of the present line */
    uint32_t lines;      /* lines that have ended */
};

/* Looks at bytes[scan->scanned..len) for the end of the head, refusing as early as it can: bare CR
 * or LF, control bytes, a first byte that starts no request, limits. Each byte is looked at once,
 * however it arrives. Returns the head's length with its empty line, H1_INCOMPLETE, or a refusal
 * with *why (static text). */
int h1_head_scan(struct h1_scan *scan, const char *bytes, uint32_t len,
                 const struct h1_limits *limits, bool is_request, const char **why);

/* How the body behind a head is framed (RFC 9112 section 6.3). */
enum h1_framing { H1_BODY_NONE, H1_BODY_LENGTH, H1_BODY_CHUNKED, H1_BODY_UNTIL_CLOSE };

struct h1_head {
    enum h1_framing framing;
    uint64_t content_length;     /* H1_BODY_LENGTH */
    bool keep_alive;             /* the sender allows another message on this connection */
    bool has_connection_options; /* Connection names fields other than close, keep-alive, upgrade */
};

/* Parses a complete head [head, head + len) as h1_head_scan found it. Fills method, target parts
 * (an absolute-form target sets authority and overrides Host, RFC 9112 section 3.2.2), version,
 * headers (slices into `head`), keep_alive, expects_continue, wants_upgrade of `request`, whose
 * arena must be set, and *result. Returns 0 or a refusal with *why. */
int h1_parse_request(struct request *request, const char *head, uint32_t len,
                     const struct h1_limits *limits, struct h1_head *result, const char **why);

/* Removes the fields that a request's Connection names (RFC 9110 section 7.6.1), but those that
 * frame, route or upgrade it. To be done before layers see it: later it would remove what they set.
 */
void h1_remove_listed(struct headers *headers);

/* Parses a response head to a request of method `method`; an interim one (1xx) has no body.
 * Fills status and headers. Returns 0 or a refusal with *why. */
int h1_parse_response(struct response *response, enum http_method method, const char *head,
                      uint32_t len, const struct h1_limits *limits, struct h1_head *result,
                      const char **why);

#endif
