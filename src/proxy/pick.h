/*
 * Choosing a peer of an upstream for an attempt, by its rule, with a queue for those who must wait
 * until a connection becomes free (connections_max).
 */
#ifndef PROXY_PICK_H
#define PROXY_PICK_H

#include "proxy/upstream_internal.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    PICK_NO_PEER = -1, /* as balance_pick; no errno that a wait ends with */
    PICK_ROOM_LOOK_MS = 50,
};

/* The index of the peer to try next; PICK_NO_PEER if all were tried, or a negative errno of the
 * wait for room: -ETIMEDOUT, -ECANCELED, -EAGAIN when too many wait already. Suspends. */
int upstream_pick(struct upstream *upstream, const struct request *request,
                  const struct tried *tried, int64_t deadline);

/* Waits until room may have become free, before all who wait already, but not for long: for who had
 * found some that others have taken, or that is still being made. Suspends. */
void upstream_await_room(struct upstream *upstream);

/* Room for a connection to the peer may have become free, or for an exchange on one: wakes the
 * first of those who wait for it. */
void pick_room_freed(const struct peer *peer);

/* Notes that this peer was tried. False when memory is exhausted. */
bool pick_remember(struct upstream *upstream, struct tried *tried,
                   const struct upstream_peer *entry, struct arena *arena);

#endif
