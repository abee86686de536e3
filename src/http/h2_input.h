/*
 * The body that a stream of HTTP/2 receives, of a request or of a response alike: chunks are queued
 * as they arrive, which the stream's window bounds, and the window is given back as its reader
 * comes for more.
 *
 *   on_data_chunk_recv ──h2_input_push──▶ queue ──body_read──▶ reader ──next read──▶ window update
 */
#ifndef HTTP_H2_INPUT_H
#define HTTP_H2_INPUT_H

#include "http/body.h"
#include "http/h2_transport.h"

struct h2_chunk;

struct h2_input {
    struct h2_transport *transport; /* borrowed */
    int32_t stream_id;
    struct h2_chunk *first; /* received and unread, oldest first; owned */
    struct h2_chunk *last;
    struct h2_chunk *lent; /* what the last read lent; owned */
    uint32_t lent_bytes;   /* of them, to be given back */
    uint64_t received;     /* bytes so far */
    uint64_t max_bytes;    /* more fails with -EMSGSIZE; 0: no bound */
    uint32_t timeout_ms;   /* of one read, -ETIMEDOUT; 0: only the reader's deadline counts */
    bool ended;            /* the peer has sent all */
    bool released;         /* nobody will read: what arrives is dropped */
    int error;             /* negative: what is queued can be read, then this */
    struct coro *reader;   /* waits in a read, or NULL */
};

void h2_input_init(struct h2_input *input, struct h2_transport *transport, int32_t stream_id);

/* Takes a received chunk. Returns 0 or -ENOMEM. Never suspends. */
int h2_input_push(struct h2_input *input, const void *bytes, size_t len);

/* The peer has ended the body (and its trailers are complete). */
void h2_input_end(struct h2_input *input);

/* Nothing more will come: reads behind what is queued fail with this error. */
void h2_input_fail(struct h2_input *input, int error);

/* Makes the body of this input, `length` bytes or -1; for a reader that needs nothing else than
 * h2_input_read. */
void h2_input_body(struct h2_input *input, struct body *body, int64_t length);

/* Reads as body_ops.read does. */
int h2_input_read(struct h2_input *input, struct body *body, struct slice *out, unsigned max,
                  int64_t deadline);

/* Drops what is queued and all that comes, and gives the window back: a body that nobody reads must
 * not stop the stream's trailers, nor hold memory. */
void h2_input_release(struct h2_input *input);

#endif
