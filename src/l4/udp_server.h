/*
 * A UDP socket of a worker with the flows of its clients. A flow is what one client's address sends
 * to one address of ours; it has a socket of its own that is connected to a peer, so the kernel
 * tells the answers of flows apart.
 *
 *   datagram ──▶ its flow? ──no──▶ chain (or at once, if that is a plain ml.udp_proxy) ──▶ peer
 *                    └──yes──▶ its peer's socket ──▶ ... answers ──▶ client
 *
 * The kernel spreads flows over the workers' sockets by a hash of their addresses, and keeps to it
 * as long as the set of sockets stays: over reloads, and over restarts of workers, since the
 * supervisor holds the sockets open. The flows of a worker that died begin anew.
 */
#ifndef L4_UDP_SERVER_H
#define L4_UDP_SERVER_H

#include "base/list.h"
#include "http/exchange.h"
#include "http/listener_config.h"
#include "io/io.h"
#include "http/admission.h"
#include "l4/udp_table.h"

#include <stdbool.h>
#include <stdint.h>

struct l4_proxy;
struct udp_send;

struct udp_stats {
    uint64_t received;  /* datagrams of clients */
    uint64_t flows;     /* begun */
    uint64_t refused;   /* datagrams that would have begun a flow beyond the bound */
    uint64_t evicted;   /* flows that made room for others */
    uint64_t dropped;   /* datagrams, either way: a queue was full, or the socket */
    uint64_t truncated; /* datagrams that were longer than a buffer, dropped */
};

struct udp_server {
    struct io *io;
    int fd; /* -1: closed */
    struct udp_end local;
    bool any;                      /* bound to all addresses: each datagram's own is asked for */
    bool sends_runs;               /* the kernel takes several datagrams as one (net/udp.h) */
    struct io_op receive;          /* multishot */
    struct service *service;       /* of the present generation; retained */
    struct listener_config config; /* of the present generation */
    struct admission admission;    /* whom it begins flows for */
    const struct l4_proxy *direct; /* what the chain consists of if that is all; else NULL */
    struct udp_table table;
    struct list fresh; /* flows whose client has said nothing behind an answer, oldest first */
    struct list established; /* other flows, oldest first */
    uint32_t flow_count;     /* those included that are ending */
    uint64_t queued_bytes;   /* of datagrams that wait for layers */
    bool draining;
    bool given_up; /* another program receives */
    int64_t drain_until_ms;
    struct timer tick;      /* while draining, or to receive again behind a failure */
    struct udp_send *spare; /* not in use */
    uint32_t spare_count;
    struct udp_stats stats;
};

/* Takes over a bound socket; receives nothing until there is a service. */
void udp_server_init(struct udp_server *server, struct io *io, int fd);

/* Serves new flows with this service from now on; those that began go on with theirs. */
void udp_server_set_service(struct udp_server *server, struct service *service,
                            const struct listener_config *config, const struct l4_proxy *direct);

/* Begins no flows any more; ends those on which nothing moves for a while, and all of them at that
 * time; then closes the socket. */
void udp_server_drain(struct udp_server *server, int64_t until_ms);

/* Receives nothing from clients any more: another program does, on the same socket, and what this
 * one took would be lost to it. Peers' answers go on. To be followed by a drain. */
void udp_server_give_up(struct udp_server *server);

/* Ends all flows and closes the socket; all is gone some turns later. */
void udp_server_abort(struct udp_server *server);

/* Is nothing left but memory? Then udp_server_fini may be called. */
bool udp_server_gone(const struct udp_server *server);
void udp_server_fini(struct udp_server *server);

#endif
