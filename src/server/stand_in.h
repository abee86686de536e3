/*
 * Standing in: while another worker is dead, its sockets are served by this one, beside its own of
 * the same listeners, so that nobody waits in their queues. Never suspends.
 *
 * Their queues are looked into now and then. To wait for a socket that other processes wait for as
 * well is not safe: for a connection the kernel wakes one of them, which may be dying, or the ring
 * of a dead one that is still being cleared away. So, at first, our own queues are looked into as
 * well.
 */
#ifndef SERVER_STAND_IN_H
#define SERVER_STAND_IN_H

#include "io/io.h"
#include "server/acceptor.h"

struct stand_ins {
    struct acceptors *acceptors; /* where they are, beside others */
    struct timer look;           /* into their queues */
    int64_t look_at_ours_until_ms;
};

void stand_ins_init(struct stand_ins *stand_ins, struct acceptors *acceptors);

/* Serves a socket of that worker, which it takes over, as our own one with that key. */
void stand_in_begin(struct stand_ins *stand_ins, unsigned worker, const char *key, int fd);

/* That worker lives again: accepts no more for it. Connections stay. */
void stand_in_end(struct stand_ins *stand_ins, unsigned worker);

/* A new generation serves with the acceptors that are wanted: so do those that stand beside them.
 */
void stand_ins_follow(struct stand_ins *stand_ins);

#endif
