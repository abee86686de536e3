/*
 * Whom a listener lets in: its options `allow`, `deny` and `connections_per_source`. Asked when a
 * connection is accepted, before anything is spent on it. Where the client's address comes later
 * (in a PROXY header), a connection begins without and is asked about then. Never suspends.
 */
#ifndef HTTP_ADMISSION_H
#define HTTP_ADMISSION_H

#include "net/address.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct http_server;

/* May this client connect? If so, *source is what it is counted as from now on (0: nothing), until
 * limits_give_source or admission_leave. If not, that is counted and, now and then, logged. */
bool admission_check(struct http_server *server, const struct address *remote, uint64_t *source);

/* The same for a connection whose stream.remote has become known; its place among those of its
 * source is given back when it closes. False: it is to be aborted. */
bool admission_enter(struct connection *connection);

/* The connection closes. */
void admission_leave(struct connection *connection);

#endif
