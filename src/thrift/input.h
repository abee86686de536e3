/*
 * Frames from a stream: takes the head of each, then lends or copies its arguments, and never takes
 * a byte of the next frame. Only thrift_input_read suspends.
 *
 *   head (bytes gathered) ──▶ arguments (left > 0) ──▶ next ──▶ head ...
 */
#ifndef THRIFT_INPUT_H
#define THRIFT_INPUT_H

#include "net/stream.h"
#include "thrift/message.h"

struct thrift_input {
    struct stream *stream;
    struct thrift_limits limits;
    struct thrift_head head; /* of the present frame, when it is complete */
    char *bytes;             /* of its head; owned, or NULL */
    uint32_t capacity;       /* of bytes */
    uint32_t len;            /* bytes that are there */
    uint32_t left;           /* arguments that were not taken yet */
    uint32_t lent;           /* of the stream's first buffer, to whoever reads */
    bool complete;           /* the head is */
};

void thrift_input_init(struct thrift_input *input, struct stream *stream,
                       const struct thrift_limits *limits);
void thrift_input_fini(struct thrift_input *input);

/* Goes on with the head of a frame. Returns 0 when it is complete, -EAGAIN, or what thrift_parse
 * gives, with *why; or -ENOMEM. */
int thrift_input_head(struct thrift_input *input, const char **why);

/* The bytes of a complete head. */
struct slice thrift_input_head_bytes(const struct thrift_input *input);

/* Copies what is there of the arguments, at most `max` bytes. */
uint32_t thrift_input_take(struct thrift_input *input, char *to, uint32_t max);

/* Drops what is there of the arguments, lent ones included. True if none are left. */
bool thrift_input_skip(struct thrift_input *input);

/* The frame is over: the next one follows. */
void thrift_input_next(struct thrift_input *input);

/* Has a part of a frame come? */
bool thrift_input_inside(const struct thrift_input *input);

/* Lends the next of the arguments until the next call of any of these functions. Returns 1, 0 when
 * none are left, -ECONNRESET when the stream ended first, -ETIMEDOUT, -ECANCELED or another errno
 * of the stream. */
int thrift_input_read(struct thrift_input *input, struct slice *out, int64_t deadline);

#endif
