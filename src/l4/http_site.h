/*
 * HTTP behind layer 4: a chain with options and TLS of its own, to which chains of layer 4 hand
 * connections on, with all that was peeked still to be read. Lives in the arena of its site.
 *
 * Its struct http_server is where connections that were handed on find their service and their
 * options; counted and drained they are by the listener that has accepted them (http/server.h).
 */
#ifndef L4_HTTP_SITE_H
#define L4_HTTP_SITE_H

#include "http/server.h"
#include "monolake.h"
#include "proxy/chain.h"

struct site;
struct l4_conn;

struct l4_http_site {
    struct http_server server;
    struct service service;
    struct site *site;
    const struct chain *chain;
};

/* Prepares one for a site; config is copied. */
void l4_http_site_init(struct l4_http_site *http, struct site *site, const struct chain *chain,
                       const struct listener_config *config);

/* Has the connection served by it as soon as its chain has returned. Returns 0, or -EPROTO when
 * that would be TLS inside TLS. */
int l4_http_site_serve(struct l4_http_site *http, struct l4_conn *conn);

/* The last layer of a chain; self is a struct l4_http_site. */
extern const ml_layer l4_http_layer;

#endif
