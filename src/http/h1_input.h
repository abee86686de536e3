/*
 * The receiving half of an HTTP/1.x connection, the same for both sides: gathers a head from the
 * stream's buffers and hands out the body behind it, piece by piece and without copying. Reading
 * may suspend. Owned by h1_server's and h1_client's connections.
 */
#ifndef HTTP_H1_INPUT_H
#define HTTP_H1_INPUT_H

#include "http/h1_chunk.h"
#include "http/h1_parse.h"
#include "net/stream.h"

#include <stdbool.h>
#include <stdint.h>

struct h1_input {
    struct stream *stream; /* borrowed */
    bool is_request;

    /* The head being gathered. */
    struct h1_scan scan;
    char *partial; /* bytes of an unfinished head, or NULL; owned */
    uint32_t partial_len;
    uint32_t partial_capacity;

    /* The body behind the last head. */
    enum h1_framing framing;
    uint32_t timeout_ms;             /* between two reads; 0: none */
    uint64_t left;                   /* H1_BODY_LENGTH: bytes to come */
    uint64_t max_bytes;              /* of the body; 0: no bound */
    uint64_t seen_bytes;             /* of the body */
    struct h1_chunk_decoder *chunks; /* H1_BODY_CHUNKED; in the arena of the message */
    struct io_buf *held;             /* lent out by the last read; owned */
    bool ended;                      /* the body was read to its end */
    int failed;                      /* the negative error that every later read repeats */
};

void h1_input_init(struct h1_input *input, struct stream *stream, bool is_request);

/* Frees what is gathered and held; the stream is not touched. */
void h1_input_fini(struct h1_input *input);

/* Has the peer begun to send a head that is not complete yet? */
bool h1_input_inside_head(const struct h1_input *input);

enum {
    H1_INPUT_HEAD = 1,        /* *head is complete */
    H1_INPUT_END = 0,         /* the peer closed before the first byte of a head */
    H1_INPUT_REFUSED = -1000, /* *refusal (enum h1_refusal) and *why say what is wrong */
};

/* Waits for a complete head and copies it to the arena. Returns one of the above or a negative
 * errno: -ETIMEDOUT, -ECANCELED, -ECONNRESET (the peer left inside a head), -ENOMEM. */
int h1_input_read_head(struct h1_input *input, struct arena *arena, const struct h1_limits *limits,
                       struct slice *head, int *refusal, const char **why, int64_t deadline);

/* Makes `body` the source of what follows the head; trailers go to `trailers`, in `arena`. */
void h1_input_begin_body(struct h1_input *input, const struct h1_head *head, struct body *body,
                         const struct body_ops *ops, struct headers *trailers, struct arena *arena);

/* The read of body_ops. */
int h1_input_read_body(struct h1_input *input, struct body *body, struct slice *out, unsigned max,
                       int64_t deadline);

/* The splice of body_ops. */
int h1_input_splice_body(struct h1_input *input, struct body *body, struct io_pipe **pipe,
                         int64_t deadline);

/* Reads and drops what is left of the body, at most `max_bytes`. Returns 0 when it has ended, or a
 * negative errno: -EMSGSIZE when there is more. */
int h1_input_discard_body(struct h1_input *input, uint64_t max_bytes, int64_t deadline);

/* Gives back the buffers that the last read lent out. */
void h1_input_release_held(struct h1_input *input);

#endif
