/*
 * The HTTP/1.x server: connections of clients, from accept to close. An idle connection is an armed
 * receive, a timer and this struct; a coroutine is taken when bytes arrive and given back when
 * there is nothing more to answer.
 *
 *   accept ─▶ idle ──bytes──▶ [coroutine: head ─▶ chain ─▶ response]* ──▶ idle
 *               │                                    │
 *               └─ timer, end ─▶ closed ◀── linger ◀─┴─▶ tunnel (101) ─▶ closed
 */
#ifndef HTTP_H1_SERVER_H
#define HTTP_H1_SERVER_H

#include "base/list.h"
#include "http/exchange.h"
#include "http/listener_config.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct h1_server {
    struct io *io;
    struct service *service;       /* of the present generation; retained */
    struct listener_config config; /* of the present generation; its texts are the service's */
    struct list connections;
    uint32_t connection_count;
    bool draining;
    uint64_t accepted; /* connections */
    uint64_t requests; /* complete heads */
    uint64_t refused;  /* heads that were answered with an error of ours */
};

void h1_server_init(struct h1_server *server, struct io *io);

/* Serves requests with this service from now on; exchanges that began go on with theirs. */
void h1_server_set_service(struct h1_server *server, struct service *service,
                           const struct listener_config *config);

/* Takes over an accepted descriptor. */
void h1_server_accept(struct h1_server *server, int fd);

/* Tells every client at its next response that the connection closes; a connection that stays idle
 * for a short while is closed. The server is drained when connection_count is 0. */
void h1_server_drain(struct h1_server *server);

/* Cancels all exchanges and closes all connections; they are gone some turns later. */
void h1_server_abort(struct h1_server *server);

/* Releases the service. No connection may be left. */
void h1_server_fini(struct h1_server *server);

#endif
