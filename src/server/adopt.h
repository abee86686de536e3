/*
 * SIGUSR2, the new worker's part: takes over tunnels that workers of the old program offer (see
 * hand_over.h and tunnel_socket.h). An offer that is not understood, or for which there is no room,
 * is refused by closing its channel: then the old worker keeps it. Never suspends.
 */
#ifndef SERVER_ADOPT_H
#define SERVER_ADOPT_H

#include "io/io.h"
#include "server/acceptor.h"

#include <stdbool.h>

struct adopters {
    struct io *io;
    struct acceptors *acceptors;
    int socket; /* on which offers come; -1: none will */
    struct io_op poll;
    unsigned count; /* adoptions under way */
};

/* Reads offers from that socket from now on, which it owns; -1: there are none. */
void adopters_init(struct adopters *adopters, struct io *io, struct acceptors *acceptors,
                   int socket);

/* Takes no more: the worker ends. */
void adopters_stop(struct adopters *adopters);

/* Is there something under way? */
bool adopters_busy(const struct adopters *adopters);

#endif
