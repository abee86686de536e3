/* How the streams that closed last were closed: later frames on them are judged by it (RFC 9113
 * section 5.1). Pure. */
#ifndef HTTP_H2_CLOSED_H
#define HTTP_H2_CLOSED_H

#include <stdbool.h>
#include <stdint.h>

enum { H2_CLOSED_KEPT = 64 };

enum h2_closing {
    H2_CLOSED_NEVER_OPENED, /* its number was skipped */
    H2_CLOSED_LONG_AGO,     /* forgotten, or skipped */
    H2_CLOSED_BY_END,       /* both sides had ended it */
    H2_CLOSED_BY_PEER_RESET,
    H2_CLOSED_BY_OUR_RESET,
};

/* Zero it. */
struct h2_closed {
    int32_t ids[H2_CLOSED_KEPT]; /* 0: free */
    uint8_t how[H2_CLOSED_KEPT]; /* enum h2_closing */
    uint32_t at;                 /* that is overwritten next */
};

static inline void h2_closed_add(struct h2_closed *closed, int32_t id, enum h2_closing how)
{
    closed->ids[closed->at] = id;
    closed->how[closed->at] = (uint8_t)how;
    closed->at = (closed->at + 1) % H2_CLOSED_KEPT;
}

/* Of a stream that is not open and whose number is not above the highest that was. */
static inline enum h2_closing h2_closed_find(const struct h2_closed *closed, int32_t id)
{
    for (unsigned i = 0; i < H2_CLOSED_KEPT; i++)
        if (closed->ids[i] == id)
            return (enum h2_closing)closed->how[i];
    bool full = closed->ids[H2_CLOSED_KEPT - 1] != 0;
    return full ? H2_CLOSED_LONG_AGO : H2_CLOSED_NEVER_OPENED;
}

#endif
