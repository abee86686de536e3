/*
 * One flow of datagrams; private to the UDP part of src/l4. Its memory stays until its operations
 * and its coroutine have ended.
 */
#ifndef L4_UDP_FLOW_H
#define L4_UDP_FLOW_H

#include "base/counters.h"
#include "l4/conn.h"
#include "l4/tcp_proxy.h"
#include "l4/udp_server.h"

struct peer;
struct upstream;

enum {
    UDP_IDLE_TIMEOUT_MS = 60000,
    UDP_QUEUED_BYTES_MAX = 16 << 20, /* of a listener, in flows whose layers have not decided */
};

struct udp_flow {
    struct udp_entry entry; /* first */
    struct udp_server *server;
    struct list link;        /* in the server's fresh or established, or alone */
    struct service *service; /* retained */
    uint64_t source;         /* what its client is counted as, or 0 */
    uint32_t pins;           /* operations, the coroutine, and the flow's own life */
    bool ended;
    bool answered;    /* the peer has said something */
    bool established; /* and the client something behind that */
    bool sends_runs;  /* of net/udp.h: the kernel can, and has refused none */
    bool asked_runs;  /* its peer's socket gives them; never where responses_max counts answers */

    /* Layers; NULL if the flow needs none. */
    struct l4_conn *conn;
    struct coro *coro;    /* that runs the chain */
    struct io_buf *queue; /* what waits for it, oldest first */
    struct io_buf *queue_last;
    uint32_t queued;

    /* The peer. */
    int fd; /* -1: none yet */
    struct io_op receive;
    struct udp_send *sends[2]; /* the last one to the peer and to the client, while on its way */
    struct upstream *upstream; /* the service's */
    struct peer *peer;         /* retained by its books */
    struct address to;
    uint32_t idle_timeout_ms;
    uint32_t responses_max; /* for each datagram of the client; 0: any number */
    int64_t until_ms;       /* of the whole flow */
    int64_t last_ms;        /* when something was received */
    struct timer timer;

    uint64_t client_bytes;
    uint64_t client_packets;
    uint64_t peer_bytes;
    uint64_t peer_packets;
};

static inline struct udp_flow *udp_flow_of(struct list *node)
{
    return container_of(node, struct udp_flow, link);
}

/* Begins the flow of a first datagram, which udp_flow_take must follow: has the chain run, or
 * connects it at once. NULL when memory or descriptors are exhausted. */
struct udp_flow *udp_flow_begin(struct udp_server *server, const struct udp_key *key,
                                uint64_t hash);

/* How many there are in this worker, those included that are ending: each has a descriptor. */
uint32_t udp_flows_of_all(void);

/* A datagram of the client, or a run of them, unless the flow has a coroutine; the buffer is the
 * flow's from now on. */
void udp_flow_take(struct udp_flow *flow, struct io_buf *buf, uint32_t segment);

/* Ends it; `why` may be empty. It is in no list or table any more when this returns. */
void udp_flow_end(struct udp_flow *flow, enum l4_reason reason, struct slice why);

/* l4_splice for a flow. Suspends. */
struct response *udp_flow_splice(struct udp_flow *flow, struct upstream *upstream,
                                 struct request *request, const struct l4_splice *options);

/* udp_send.c: sends the buffer, a datagram or a run of them, which it releases, to the flow's peer
 * or client, with others of this turn as a run where the kernel has those. What the socket does not
 * take is dropped and counted. */
void udp_send(struct udp_flow *flow, struct io_buf *buf, uint32_t segment, bool to_client);
void udp_sends_free(struct udp_server *server);

/* Takes the first datagram out of a run of several, as a copy. NULL when memory is exhausted: it is
 * dropped and counted. */
struct io_buf *udp_take_first(struct udp_server *server, struct io_buf *run, uint32_t segment);

static inline void udp_count_dropped(struct udp_server *server, uint32_t count)
{
    server->stats.dropped += count;
    counters_add(COUNTER_UDP_DROPPED, count);
}

/* What the network or the kernel said of the peer: counts against it, ends the flow. */
void udp_flow_peer_failed(struct udp_flow *flow, int error);

void udp_flow_unpin(struct udp_flow *flow);

#endif
