/*
 * Peers: the origins behind upstreams, with their health and idle connections. A peer is shared by
 * all generations that name the same upstream and address, so a reload keeps both. Connecting and
 * resolving may suspend.
 */
#ifndef PROXY_PEER_H
#define PROXY_PEER_H

#include "base/list.h"
#include "http/client_exchange.h"
#include "http/client_tls.h"
#include "net/address.h"
#include "proxy/upstream.h"

#include <stdbool.h>
#include <stdint.h>

enum { PEER_ADDRESSES_MAX = 8 }; /* of one host name */

/* How a connection to a peer begins, and for whom alone it is; see send_proxy.h. Zeroed: with
 * nothing, for everybody. */
struct peer_greeting {
    struct slice bytes;    /* sent before all else */
    struct slice identity; /* connections of others are not used */
};

/* What a peer has agreed on, of those that choose. */
enum peer_speaks { PEER_UNDECIDED, PEER_SPEAKS_H1, PEER_SPEAKS_H2 };

struct peer {
    struct list link;  /* in the worker's list of peers */
    uint32_t users;    /* upstreams that hold it, and clients open on it */
    char *key;         /* "upstream name\naddress\nprotocol\nsettings of TLS"; owned */
    char *text;        /* "host:port" as configured; owned */
    unsigned counters; /* the place of its upstream's, see base/counters.h */
    struct io *io;
    struct client_tls tls; /* its client retained, its name owned */
    struct tls_memory tls_memory;

    /* Where it is. */
    struct address addresses[PEER_ADDRESSES_MAX];
    unsigned address_count; /* 0: not resolved yet */
    unsigned next_address;
    int64_t resolved_until_ms; /* DEADLINE_NEVER for numeric addresses */
    bool resolving;            /* its name is being looked up */
    struct list unresolved;    /* who waits for the first address */

    /* Passive health. */
    uint32_t fails;        /* in a row */
    int64_t down_until_ms; /* 0: up */

    /* Connections. */
    struct list idle; /* of HTTP/1, most recently used first */
    uint32_t idle_count;
    uint32_t open;   /* idle ones included */
    uint32_t active; /* exchanges now, and tunnels that have a connection for themselves */

    /* Connections of HTTP/2, which exchanges share; peer_h2.c. */
    enum peer_speaks speaks;  /* UPSTREAM_AUTO; what the last handshake said */
    struct list h2;           /* newest first */
    struct list dials;        /* that are being made */
    uint32_t h2_count;        /* in both lists */
    struct list thrift;       /* connections of Thrift, most recently idle first; peer_thrift.c */
    uint32_t idle_timeout_ms; /* of those that are shared */
    uint32_t idle_max;
};

/* The peer of that upstream (by its name, protocol and settings of TLS) and address, created if
 * new; retained. NULL when memory is exhausted or, with *why, when the address is wrong. */
struct peer *peer_get(struct io *io, const struct upstream_config *config, const char *text,
                      const char **why);
void peer_release(struct peer *peer);

/* Is it worth a try now? */
bool peer_up(const struct peer *peer);

/* Takes note of a success, or of a failure: `fail_max` in a row take the peer out for a while. */
void peer_succeeded(struct peer *peer);
void peer_failed(struct peer *peer, const struct upstream_config *config);

/* Begins an exchange with the peer, on a connection that is there or on a new one, which is what
 * `fresh` asks for where connections are not shared. With `verify` the kernel is asked about a
 * connection that is there, for requests that must not be sent into one that is about to close.
 * Returns 0 or a negative errno: -EAGAIN when somebody else has taken the room that there was. */
int peer_acquire(struct peer *peer, const struct upstream_config *config,
                 const struct peer_greeting *greeting, bool fresh, bool verify,
                 struct client_exchange **out, int64_t deadline);

/* May an exchange begin now, with at most so many connections (0: any number)? */
bool peer_has_room(const struct peer *peer, unsigned connections_max);

/* Ends an exchange, `complete` if its request was sent to its end. Its connection is kept if it may
 * be used again and there is room, else closed. */
void peer_give_back(struct peer *peer, struct client_exchange *exchange, bool complete,
                    const struct upstream_config *config);

/* Connects a stream of bytes to the peer, by TLS if it is asked for so; it counts as one of the
 * peer's connections and as an exchange until it is closed, and frees itself then. Returns 0 or a
 * negative errno: -EAGAIN when there is no room after all. */
int peer_connect_stream(struct peer *peer, const struct upstream_config *config,
                        const struct peer_greeting *greeting, struct stream **out,
                        int64_t deadline);

/* A stream over the descriptor of a connection to a peer that another process has made. Where a
 * peer of that address is known it counts as one of its connections and as an exchange; it frees
 * itself when it has closed. NULL when memory is exhausted. */
struct stream *peer_adopt_stream(struct io *io, int fd, const struct address *remote);

/* A connected UDP socket to the peer, which counts as one of its connections and as an exchange
 * until peer_datagrams_over; *to is its address. Returns it or a negative errno. Suspends if
 * address_count is 0, and in a coroutine if descriptors are lacking: outside of one that fails. */
int peer_connect_datagrams(struct peer *peer, const struct upstream_config *config,
                           struct address *to, int64_t deadline);
void peer_datagrams_over(struct peer *peer);

/* Behind a 101: the connection is nobody's but the caller's, who closes it; of HTTP/1 it counts as
 * an exchange until then. */
struct stream *peer_give_away(struct peer *peer, struct client_exchange *exchange);

/* Closes every idle connection of this worker. */
void peers_close_idle(void);

#endif
