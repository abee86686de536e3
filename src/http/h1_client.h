/*
 * A connection to an HTTP/1.x origin: sends requests, reads response heads and bodies, one exchange
 * at a time. Knows nothing of peers or pools: src/proxy/peer.c keeps and counts these. Suspends.
 */
#ifndef HTTP_H1_CLIENT_H
#define HTTP_H1_CLIENT_H

#include "base/list.h"
#include "http/client_exchange.h"
#include "http/client_tls.h"
#include "http/h1_input.h"
#include "http/h1_write.h"

#include <stdbool.h>
#include <stdint.h>

struct h1_client {
    struct client_exchange exchange; /* the present one */
    struct stream stream;
    struct h1_input input;
    struct h1_head head;   /* of the last response */
    struct list link;      /* for the owner's pool */
    struct timer idle;     /* for the owner's pool */
    struct slice identity; /* whose requests alone it may carry (proxy/send_proxy.h); owned */
    void *owner;           /* the pool */
    void (*on_closed)(struct h1_client *client); /* before its memory is freed; may be NULL */
};

extern const struct client_exchange_ops h1_client_ops;

/* The connection of an exchange with h1_client_ops. */
static inline struct h1_client *h1_client_of(const struct client_exchange *exchange)
{
    return container_of(exchange, struct h1_client, exchange);
}

/* Connects, by TLS if there is a context, behind a header of the PROXY protocol if its len is not
 * 0. Returns 0 or a negative errno. */
int h1_client_open(struct h1_client **out, struct io *io, const struct address *address,
                   struct slice header, const struct client_tls *tls, int64_t deadline);

/* Serialises a request's head. */
void h1_client_write_head(struct h1_out *out, const struct client_head *head);

/* Lets go of what the exchange holds: `complete` if the request was sent to its end. Returns true
 * if another may follow on this connection. */
bool h1_client_end_exchange(struct h1_client *client, bool complete);

/* Closes it; the memory is freed when that has finished. */
void h1_client_close(struct h1_client *client);

#endif
