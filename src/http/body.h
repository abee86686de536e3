/*
 * A message body: a source that its consumer pulls. The slices of one read stay valid until the
 * next read or the release, so bytes go from the receive buffer to the send without a copy, and
 * nothing is received that nobody takes. Reading may suspend.
 */
#ifndef HTTP_BODY_H
#define HTTP_BODY_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum { BODY_SLICES_MAX = 8 }; /* most slices that consumers ask for at once */

struct body;
struct io_pipe;

struct body_ops {
    /* Fills up to `max` slices. Returns their number (at least 1), 0 at the end of the body, or a
     * negative errno: -ETIMEDOUT, -ECANCELED, -EPROTO (malformed), -ECONNRESET (cut short: a body
     * that ends before its framing says so is never an end), -EMSGSIZE (over a limit),
     * -EIO (the layer that makes it failed).
     * After a failure other than -ETIMEDOUT every later read fails in the same way. */
    int (*read)(struct body *body, struct slice *out, unsigned max, int64_t deadline);
    /* May be NULL: gives the next bytes in a pipe (io/pipe.h), which is then the caller's, so that
     * they reach his socket without entering the process. Returns how many; 0: what comes next is
     * to be read; -EOPNOTSUPP: so is all that is left; -ETIMEDOUT or -ECANCELED. */
    int (*splice)(struct body *body, struct io_pipe **pipe, int64_t deadline);
    /* Called once when nobody will read any more, read to its end or not. */
    void (*release)(struct body *body);
};

struct body {
    const struct body_ops *ops; /* NULL: there is no body, or it has been released */
    void *source;               /* for the ops */
    int64_t length;             /* total bytes as declared, or -1 when not known beforehand */
    int64_t bytes_read;         /* pulled so far */
    bool ended;                 /* read to its end: the source may be reused */
};

/* A body of length 0 that reads as ended at once. */
void body_init_empty(struct body *body);

/* A body of borrowed bytes, which must live as long as the body. */
void body_init_bytes(struct body *body, struct slice bytes);

/* Reads as body_ops.read does; an empty body gives 0. */
int body_read(struct body *body, struct slice *out, unsigned max, int64_t deadline);

/* Gives bytes as body_ops.splice does; -EOPNOTSUPP of a body that cannot. */
int body_splice(struct body *body, struct io_pipe **pipe, int64_t deadline);

/* Makes a body that was read readable from its start again. False if its bytes are gone. */
bool body_rewind(struct body *body);

/* Releases it; harmless if it is empty or was released. It then reads as ended. */
void body_release(struct body *body);

static inline bool body_is_empty(const struct body *body)
{
    return body->length == 0;
}

#endif
