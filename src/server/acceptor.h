/*
 * Accepting: the listening sockets of a worker, each with the server of its connections. No more is
 * accepted than may be open: by the listener's connections_max and connections_total_max, and by
 * what the process has descriptors for; and no faster than by accept_rate. Others wait in the
 * kernel's queue, and idle connections make room for them. Never suspends.
 */
#ifndef SERVER_ACCEPTOR_H
#define SERVER_ACCEPTOR_H

#include "base/list.h"
#include "http/server.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

/* All of a worker. */
struct acceptors {
    struct io *io;
    struct list list;
    struct limits limits;     /* counts that all workers share */
    uint32_t connections_max; /* of clients; leaves descriptors for their requests' origins */
};

/* One listening socket with its connections. */
struct acceptor {
    struct list link;
    struct acceptors *all;
    char *key; /* owned; see worker.h */
    int fd;    /* -1: accepts no more; connections may be left */
    struct http_server server;
    struct io_op accept;
    struct timer resume;
    int64_t tell_ms;   /* when the log may hear again of a bound that holds clients back */
    bool wanted;       /* by the generation that begins to serve */
    int stands_in_for; /* the worker whose socket it is (stand_in.h); -1: it is ours */
};

void acceptors_init(struct acceptors *acceptors, struct io *io, const struct limits *limits);

/* How many clients a process may have, by its limit of descriptors. */
uint32_t acceptors_connections_max(void);

/* Takes over a socket; acceptor_start is to be called when its server has a service. NULL, logged,
 * when memory is exhausted. */
struct acceptor *acceptors_add(struct acceptors *acceptors, const char *key, int fd);

/* Our own with that key that has not been stopped, or NULL. */
struct acceptor *acceptors_find(struct acceptors *acceptors, const char *key);

/* Connections of all together. */
uint32_t acceptors_connections(const struct acceptors *acceptors);

/* Frees those that accept no more and have no connections left. */
void acceptors_sweep(struct acceptors *acceptors);

void acceptor_start(struct acceptor *acceptor);

/* Accepts what is queued now, as far as the bounds allow. */
void acceptor_take_queued(struct acceptor *acceptor);

/* Are there descriptors for one more connection? */
bool acceptor_has_room(const struct acceptor *acceptor);

/* Takes what the kernel has queued, so that no connection is lost, then closes the socket. */
void acceptor_stop(struct acceptor *acceptor);

#endif
