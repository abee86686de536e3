/*
 * One request to an origin and its response, over whichever HTTP version the connection speaks:
 * what forwarding needs, and all that it knows of versions. h1_client.c and h2_client.c provide it.
 *
 *   send_head ──▶ [send_body ...]            in the coroutine that forwards, or beside it
 *        └──▶ read_head ... ──▶ begin_body ──▶ read_body ...        in the one that forwards
 *
 * Whoever made the exchange (src/proxy/peer.c) takes it back when both are over or given up.
 */
#ifndef HTTP_CLIENT_EXCHANGE_H
#define HTTP_CLIENT_EXCHANGE_H

#include "http/message.h"

#include <stdbool.h>
#include <stdint.h>

struct client_exchange;
struct stream;

enum { CLIENT_HEAD_EXTRA_MAX = 5, CLIENT_RESPONSE_FIELDS_MAX = 256 };

/* A request's head as an origin gets it: the request with some fields replaced. What frames the
 * body or concerns the connection is left to the version. */
struct client_head {
    const struct request *request;
    struct slice authority;
    uint64_t skip;                              /* ids of fields not to be sent on (bits) */
    struct header extra[CLIENT_HEAD_EXTRA_MAX]; /* sent behind the request's own */
    unsigned extra_count;
    bool upgrade; /* ask for the tunnel that the request asks for */
};

struct client_exchange_ops {
    /* Sends a head and the first bytes of the body, which live as long as the request; they are all
     * of it if request->body.ended, and then trailers follow. Returns 0 or a negative errno:
     * -ETIMEDOUT when the origin takes nothing, -ENOMEM, -ECANCELED; after any other an answer may
     * still be there to be read. */
    int (*send_head)(struct client_exchange *exchange, const struct client_head *head,
                     struct slice start, int64_t deadline);
    /* Sends more of the body; the last of it and its trailers if `ended`. Returns as send_head. */
    int (*send_body)(struct client_exchange *exchange, const struct slice *pieces, unsigned count,
                     bool ended, int64_t deadline);
    /* Reads the next response head, interim ones included, into `response` (fresh, of the request's
     * arena). Returns 0 or a negative errno: -ECONNRESET when the origin closed first, -EPROTO with
     * *why (static text) when it is malformed, -ECONNREFUSED when it has not looked at the request,
     * which may then be sent again whatever it is, -ETIMEDOUT (may be called again), -ECANCELED,
     * -ENOMEM, or what `fail` was given. */
    int (*read_head)(struct client_exchange *exchange, struct response *response, const char **why,
                     int64_t deadline);
    /* Makes the response's body what follows the last head; `ops` read it by read_body. */
    void (*begin_body)(struct client_exchange *exchange, struct response *response,
                       const struct body_ops *ops);
    /* As the read of body_ops. */
    int (*read_body)(struct client_exchange *exchange, struct body *body, struct slice *out,
                     unsigned max, int64_t deadline);
    /* As the splice of body_ops; NULL where a body's bytes are mixed with others. */
    int (*splice_body)(struct client_exchange *exchange, struct body *body, struct io_pipe **pipe,
                       int64_t deadline);
    /* Ends the reading of the response with an error of ours; not of one that is being spliced. */
    void (*fail)(struct client_exchange *exchange, int error);
    /* Has the origin begun an answer, if only a part of a head? */
    bool (*heard)(const struct client_exchange *exchange);
    /* Behind a 101: gives a stream that leads to the origin; the exchange is over. NULL: memory or
     * descriptors are exhausted. */
    struct stream *(*detach)(struct client_exchange *exchange);
};

struct client_exchange {
    const struct client_exchange_ops *ops;
    const struct request *request; /* since send_head */

    /* Set by the user before the head is sent. */
    uint32_t send_timeout_ms;
    uint32_t read_timeout_ms;
    uint32_t head_max_bytes; /* of the response */

    bool reused;         /* the connection has answered others before */
    bool response_ended; /* the response was read to its end */
};

#endif
