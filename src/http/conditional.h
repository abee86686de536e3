/*
 * Conditional and range requests (RFC 9110 sections 13 and 14): what to send of a representation
 * with these validators. Pure.
 */
#ifndef HTTP_CONDITIONAL_H
#define HTTP_CONDITIONAL_H

#include "http/message.h"

#include <stdint.h>
#include <time.h>

/* The representation that could be sent. */
struct validators {
    struct slice etag; /* strong, with its quotes */
    time_t modified;   /* seconds since 1970 */
    uint64_t size;     /* bytes */
};

enum conditional {
    CONDITIONAL_WHOLE,         /* 200 */
    CONDITIONAL_PARTIAL,       /* 206, of the range */
    CONDITIONAL_NOT_MODIFIED,  /* 304 */
    CONDITIONAL_FAILED,        /* 412 */
    CONDITIONAL_UNSATISFIABLE, /* 416 */
};

struct byte_range {
    uint64_t first;
    uint64_t count; /* at least 1 */
};

/* Evaluates the request's preconditions in the order of RFC 9110 section 13.2.2, then Range (one
 * range of bytes; more than one, or another unit, are ignored as section 14.2 allows). */
enum conditional conditional_evaluate(const struct request *request,
                                      const struct validators *validators,
                                      struct byte_range *range);

/* Parses an HTTP date in any of the three formats of RFC 9110 section 5.6.7; -1 if it is none. */
time_t http_date_parse(struct slice text);

/* "Sun, 06 Nov 1994 08:49:37 GMT" and a NUL. */
enum { HTTP_DATE_BYTES = 30 };
void http_date_format(time_t time, char text[HTTP_DATE_BYTES]);

#endif
