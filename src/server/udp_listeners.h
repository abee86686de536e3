/* The UDP sockets of a worker, each with its flows. As acceptor.h for TCP. Never suspends. */
#ifndef SERVER_UDP_LISTENERS_H
#define SERVER_UDP_LISTENERS_H

#include "base/list.h"
#include "l4/udp_server.h"

#include <stdbool.h>
#include <stdint.h>

struct udp_listener {
    struct list link;
    char *key; /* owned; see worker.h */
    struct udp_server server;
    bool wanted; /* by the generation that begins to serve */
};

struct udp_listeners {
    struct io *io;
    struct list list;
    struct limits limits; /* counts that all workers share */
};

void udp_listeners_init(struct udp_listeners *listeners, struct io *io,
                        const struct limits *limits);

/* Is it the key of such a listener? */
bool udp_listeners_own(const char *key);

/* Takes over a socket. */
void udp_listeners_add(struct udp_listeners *listeners, const char *key, int fd);

/* The one with that key that is not draining, or NULL. */
struct udp_listener *udp_listeners_find(struct udp_listeners *listeners, const char *key);

/* Flows of all together. */
uint32_t udp_listeners_flows(const struct udp_listeners *listeners);

/* Drains those that are not wanted, or all; closes those that never had a service. */
void udp_listeners_drain_unwanted(struct udp_listeners *listeners, int64_t until_ms);
void udp_listeners_drain(struct udp_listeners *listeners, int64_t until_ms);
void udp_listeners_drop_unused(struct udp_listeners *listeners);

/* Has all receive nothing from clients any more: see udp_server_give_up. */
void udp_listeners_give_up(struct udp_listeners *listeners);

void udp_listeners_abort(struct udp_listeners *listeners);

/* Frees those of which nothing is left. */
void udp_listeners_sweep(struct udp_listeners *listeners);

#endif
