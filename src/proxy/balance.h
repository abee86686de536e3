/* Picking a peer by an upstream's rule. Pure choice: connects and waits for nothing. */
#ifndef PROXY_BALANCE_H
#define PROXY_BALANCE_H

#include "http/message.h"
#include "proxy/peer.h"
#include "proxy/upstream.h"

#include <stdint.h>

/* A peer's place in one upstream. */
struct upstream_peer {
    struct peer *peer; /* retained */
    uint32_t weight;   /* 1..1000 */
    int32_t current;   /* smooth weighted round robin: credit */
    uint64_t hash;     /* of its text, for BALANCE_HASH */
};

struct balancer {
    enum balance rule;
    struct upstream_peer *peers;
    unsigned count;
    bool weighted;   /* the weights differ */
    unsigned next;   /* plain round robin: whose turn it is */
    uint64_t random; /* state of the generator; never 0 */
    const char *hash_header;
};

/* Peers that an exchange has tried already: one bit each. */
struct tried {
    uint64_t *words; /* NULL: none yet */
};

static inline bool tried_has(const struct tried *tried, unsigned index)
{
    return tried->words && (tried->words[index / 64] >> (index % 64) & 1);
}

/* The index of the peer to use: one that is up, has room for a connection (connections_max, 0: any)
 * and was not tried; if all are down, one that was not tried all the same. -1 if there is none;
 * then *full tells whether only room was missing, of one that is up if any is. */
int balance_pick(struct balancer *balancer, const struct request *request,
                 const struct tried *tried, unsigned connections_max, bool *full);

#endif
