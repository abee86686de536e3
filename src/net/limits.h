/*
 * Counts that all workers of a program share: connections of a listener, connections of a source,
 * and the rate at which a listener accepts. They lie in memory that the supervisor maps before it
 * forks. Nothing is locked, and each worker writes only counts of its own, of which the others make
 * the sum: when one is killed, clearing its counts is all that there is to do.
 *
 *   ┌ listeners: name, time of the rate ┬ worker 0: connections by listener, table of sources ┬ ...
 *
 * A table of sources has room for as many as a worker can have connections. Its places are found by
 * a hash with a secret key, so that nobody can choose addresses that meet. Never suspends.
 */
#ifndef NET_LIMITS_H
#define NET_LIMITS_H

#include "net/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct limits_shared;

/* The counts as one worker has them. */
struct limits {
    struct limits_shared *shared; /* NULL: nothing is counted */
    unsigned worker;              /* whose counts this process writes */
};

enum {
    LIMITS_LISTENERS_MAX = 2048,
    LIMITS_NONE = -1, /* no listener: nothing of it is counted */
};

/* Maps them for so many workers, each of so many connections. Returns 0 or a negative errno. */
int limits_open(struct limits *limits, unsigned workers, uint32_t connections_max);

void limits_close(struct limits *limits);

/* Forgets what a worker has counted; it must have ended. */
void limits_clear(struct limits *limits, unsigned worker);

/* The place of the listener of that name, which is given one if it has none; LIMITS_NONE when there
 * is no more room. */
int limits_listener(const struct limits *limits, const char *name);

/* Connections of a listener. */
void limits_add_connections(const struct limits *limits, int listener, int count);
uint32_t limits_connections(const struct limits *limits, int listener);

/* What a listener counts a client as: its address, cut to so many bits. 0: it is counted as nothing
 * (a local socket, no address). */
uint64_t limits_source(const struct limits *limits, int listener, const struct address *address,
                       unsigned v4_bits, unsigned v6_bits);

/* Counts one more connection of a source; false, and it is not counted, if there are `max` already.
 * The bound is never passed, but two that come in the same moment may both be refused. */
bool limits_take_source(const struct limits *limits, uint64_t source, uint32_t max);

/* One that was counted is gone. */
void limits_give_source(const struct limits *limits, uint64_t source);

/* How many connections a listener may accept now, at so many a second and `burst` at once. */
uint32_t limits_rate_left(const struct limits *limits, int listener, uint32_t rate, uint32_t burst);

/* One was accepted. */
void limits_rate_take(const struct limits *limits, int listener, uint32_t rate, uint32_t burst);

#endif
