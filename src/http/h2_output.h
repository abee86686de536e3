/*
 * The body that a stream of HTTP/2 sends, of a response or of a request alike: its coroutine hands
 * over slices and suspends until the session has taken them, which it does as the peer's windows
 * and the socket allow. Between two hand-overs the session skips the stream (deferred).
 */
#ifndef HTTP_H2_OUTPUT_H
#define HTTP_H2_OUTPUT_H

#include "http/body.h"
#include "http/h2_transport.h"

struct h2_output {
    struct h2_transport *transport;       /* borrowed */
    int32_t stream_id;                    /* set when it is known, before the first send */
    struct slice pieces[BODY_SLICES_MAX]; /* to be taken; the sender's */
    unsigned count;                       /* of them */
    unsigned at;                          /* the first that is not taken whole */
    size_t left;                          /* bytes in them */
    bool last;                            /* nothing follows them but the trailers */
    bool deferred;                        /* the session waits to be resumed */
    bool finished;                        /* the end was taken */
    int error;                            /* negative: the stream can send nothing more */
    struct coro *sender;                  /* waits in h2_output_send, or NULL */
    const nghttp2_nv *trailers;           /* sent behind the last piece; the sender's */
    size_t trailer_count;
    uint64_t taken; /* bytes so far */
};

void h2_output_init(struct h2_output *output, struct h2_transport *transport, int32_t stream_id);

/* For nghttp2_submit_response and nghttp2_submit_request. */
nghttp2_data_provider h2_output_provider(struct h2_output *output);

/* Hands over slices without waiting, before the first send. They are borrowed until they are taken
 * or h2_output_fail is called. */
void h2_output_begin(struct h2_output *output, const struct slice *pieces, unsigned count,
                     bool last);

/* Hands over slices (borrowed until it returns; none is fine) and waits until they are taken; with
 * `last` also until the end of the body is. Fails with -ETIMEDOUT when nothing is taken for
 * stall_ms (0: no bound) or at the deadline, with -ECANCELED, or with the error of
 * h2_output_fail. Suspends. */
int h2_output_send(struct h2_output *output, const struct slice *pieces, unsigned count, bool last,
                   uint32_t stall_ms, int64_t deadline);

/* The stream is closed: present and later sends fail with this error, and no slice is read again.
 */
void h2_output_fail(struct h2_output *output, int error);

/* Copies the next `length` bytes, which there are, to `to`; for the transport. */
void h2_output_take(struct h2_output *output, char *to, size_t length);

#endif
