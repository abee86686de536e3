/*
 * A tunnel between a stream of HTTP/2, of a client's connection or of an origin's (CONNECT, RFC
 * 9113 section 8.5; extended CONNECT, RFC 8441), and a byte stream.
 */
#ifndef HTTP_H2_TUNNEL_H
#define HTTP_H2_TUNNEL_H

#include "http/h2_input.h"
#include "http/h2_output.h"
#include "net/stream.h"
#include "net/tunnel.h"

struct h2_tunnel {
    struct h2_input *input; /* what the peer sends on the HTTP/2 stream; borrowed, as is the next */
    struct h2_output *output;        /* what it is sent */
    struct stream *other;            /* closed at the end */
    uint32_t idle_timeout_ms;        /* both directions silent for so long; 0: no bound */
    uint32_t half_closed_timeout_ms; /* the same once one side has ended; 0: as that */
    uint32_t send_timeout_ms;        /* the HTTP/2 peer takes nothing for so long */
    int64_t deadline;                /* DEADLINE_NEVER: none; of the whole tunnel */
};

/* Pumps until both directions have ended, half-closes carried over. Returns 0 or a negative errno:
 * the HTTP/2 stream is to be reset. In *outcome the stream is the client. Suspends. */
int h2_tunnel_run(const struct h2_tunnel *tunnel, struct tunnel_result *outcome);

#endif
