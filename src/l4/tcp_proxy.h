/*
 * Connects connections of layer 4 to peers of an upstream: the leaves ml.tcp_proxy and
 * ml.udp_proxy, and conn:splice. Suspends until the peer is connected.
 */
#ifndef L4_TCP_PROXY_H
#define L4_TCP_PROXY_H

#include "base/arena.h"
#include "monolake.h"

#include <stdint.h>

struct request;
struct response;
struct upstream;

enum { L4_TIMEOUT_UNSET = UINT32_MAX };

/* Times of the tunnel, in milliseconds; L4_TIMEOUT_UNSET: as the listener says. */
struct l4_splice {
    uint32_t idle_timeout_ms;
    uint32_t total_timeout_ms;
    uint32_t responses_max; /* flows of datagrams: answers to each datagram; 0: any number */
};

/* A response that carries the stream to a peer, or one with an error and its text. NULL if the
 * connection is cancelled. */
struct response *l4_splice(struct upstream *upstream, struct request *request,
                           const struct l4_splice *options);

/* The response to a failure of upstream_dial; NULL if the connection is cancelled. */
struct response *l4_dial_failure(struct request *request, int error, struct slice why);

struct l4_proxy {
    struct upstream *upstream;
    struct l4_splice options;
};

/* The leaves, for streams and for flows of datagrams; self is a struct l4_proxy. */
extern const ml_layer l4_tcp_proxy_layer;
extern const ml_layer l4_udp_proxy_layer;

#endif
