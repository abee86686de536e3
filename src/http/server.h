/*
 * The HTTP server of a listener: connections of clients from accept to close, whichever protocol
 * they speak. What a connection does in between is its protocol's (h1_server.c, h2_server.c).
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "base/list.h"
#include "http/admission.h"
#include "http/exchange.h"
#include "http/listener_config.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct http_server {
    struct io *io;
    struct service *service;       /* of the present generation; retained */
    struct listener_config config; /* of the present generation; its texts are the service's */
    struct list connections;
    uint32_t connection_count;
    bool draining;
    struct admission admission; /* whom it lets in */
    struct address local;       /* where its first client came to; len 0: none has come */
    uint64_t accepted;          /* connections */
    uint64_t requests;          /* complete heads */
};

void http_server_init(struct http_server *server, struct io *io);

/* Serves requests with this service from now on; exchanges that began go on with theirs.
 * Connections that were handed on to a server of the service's before it are drained: theirs is
 * gone. */
void http_server_set_service(struct http_server *server, struct service *service,
                             const struct listener_config *config);

/* Takes over an accepted descriptor. A client that may not connect is reset. */
void http_server_accept(struct http_server *server, int fd);

/* Takes over the descriptor of a client that another process has let in; no protocol is started
 * yet, nor is the stream. NULL when memory is exhausted: then the descriptor is the caller's still.
 */
struct connection *http_server_adopt(struct http_server *server, int fd,
                                     const struct address *remote, const struct address *local);

/* Tells every client that its connection closes, as soon as its protocol can say so; a connection
 * that stays idle for a short while is closed. The server is drained when connection_count is 0. */
void http_server_drain(struct http_server *server);

/* Cancels all exchanges and closes all connections; they are gone some turns later. */
void http_server_abort(struct http_server *server);

/* Releases the service. No connection may be left. */
void http_server_fini(struct http_server *server);

#endif
