/* The inside of peers, for peer.c (what they are, connections of HTTP/1), peer_h2.c (connections of
 * HTTP/2), peer_thrift.c and peer_stream.c. */
#ifndef PROXY_PEER_INTERNAL_H
#define PROXY_PEER_INTERNAL_H

#include "http/h1_client.h"
#include "http/h2_client.h"
#include "proxy/peer.h"
#include "thrift/client.h"

/* A connection counts as open, and as a user, from its beginning to its end. */
void peer_connection_begins(struct peer *peer);
void peer_connection_closed(struct peer *peer);

/* How a connection of some kind is opened. */
struct peer_opener {
    /* To one address. Returns 0 or a negative errno. Suspends. */
    int (*open)(struct peer_opener *opener, struct peer *peer, const struct address *to,
                int64_t deadline);
};

/* Opens a connection that has begun, to whichever address takes it; on failure it is closed.
 * Returns 0 or a negative errno. Suspends. */
int peer_connect(struct peer *peer, struct peer_opener *opener, int64_t deadline);

/* Is there room for one more connection? An idle one is closed for it, which may take a moment. */
bool peer_make_room(struct peer *peer, unsigned connections_max);

/* A peer that is at that address, or NULL. */
struct peer *peer_at(const struct address *address);

void peer_unref(struct peer *peer);

/* Does no upstream name it any more? Only its connections hold it then. */
bool peer_orphaned(const struct peer *peer);

/* As the functions of peer.h. */
int peer_h2_acquire(struct peer *peer, const struct upstream_config *config, bool verify,
                    struct client_exchange **out, int64_t deadline);
void peer_h2_give_back(struct peer *peer, struct client_exchange *exchange, bool complete,
                       const struct upstream_config *config);

/* May an exchange begin on a connection that is there or being made? */
bool peer_h2_has_room(const struct peer *peer);

/* How many are idle, and the end of the longest idle one of these, by a reset. */
unsigned peer_h2_idle_count(const struct peer *peer);
void peer_h2_shed(struct peer *peer);

/* Likewise for Thrift; peer_thrift.c. */
unsigned peer_thrift_idle_count(const struct peer *peer);
void peer_thrift_shed(struct peer *peer);
int peer_thrift_acquire(struct peer *peer, const struct upstream_config *config, bool fresh,
                        bool verify, struct client_exchange **out, int64_t deadline);
void peer_thrift_give_back(struct peer *peer, struct client_exchange *exchange, bool complete,
                           const struct upstream_config *config);
bool peer_thrift_has_room(const struct peer *peer);
void peer_thrift_close_idle(struct peer *peer);

/* Says goodbye on those without exchanges; or closes them at once, at the end of the worker. */
void peer_h2_drain_idle(struct peer *peer);
void peer_h2_close_idle(struct peer *peer);

#endif
