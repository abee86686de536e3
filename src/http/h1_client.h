/*
 * A connection to an HTTP/1.x origin: sends serialised requests, reads response heads and bodies.
 * Knows nothing of peers or pools: src/proxy/peer.c keeps and counts these. Suspends.
 */
#ifndef HTTP_H1_CLIENT_H
#define HTTP_H1_CLIENT_H

#include "base/list.h"
#include "http/h1_input.h"
#include "http/message.h"

#include <stdbool.h>
#include <stdint.h>

struct h1_client {
    struct stream stream;
    struct h1_input input;
    struct h1_head head; /* of the last response */
    uint32_t answers;    /* final responses so far; more than 0: the connection is reused */
    struct list link;    /* for the owner's pool */
    struct timer idle;   /* for the owner's pool */
    void *owner;         /* the pool */
    void (*on_closed)(struct h1_client *client); /* before its memory is freed; may be NULL */
};

/* Connects. Returns 0 or a negative errno. */
int h1_client_open(struct h1_client **out, struct io *io, const struct address *address,
                   int64_t deadline);

/* To be called before the first byte of a request: until its response has been read to the end the
 * connection is fit for nothing else. */
void h1_client_begin_request(struct h1_client *client);

/* Sends bytes of a request. Returns 0 or a negative errno. */
int h1_client_send(struct h1_client *client, struct iovec *iov, unsigned count, int64_t deadline);

/* Reads the next response head, interim ones included, into `response` (fresh, of the request's
 * arena). Returns 0, or a negative errno: -ECONNRESET when the origin closed first, -EPROTO with
 * *why when it is malformed, -ETIMEDOUT (may be called again), -ECANCELED, -ENOMEM. */
int h1_client_read_head(struct h1_client *client, struct response *response,
                        const struct h1_limits *limits, const char **why, int64_t deadline);

/* Makes `body` what follows the last head. */
void h1_client_begin_body(struct h1_client *client, struct response *response,
                          const struct body_ops *ops);

/* Has the peer begun an answer, if only a part of a head? */
bool h1_client_heard(const struct h1_client *client);

/* May another request follow on this connection? Only when the last body was read to its end. */
bool h1_client_reusable(const struct h1_client *client);

/* Closes it; the memory is freed when that has finished. */
void h1_client_close(struct h1_client *client);

#endif
