/*
 * SIGUSR2, the old worker's part: hands its tunnels to the workers of the new program, one by one,
 * a few at a time, from the moment on when it drains. Whatever goes wrong with one, it stays here
 * and has the grace period to end, as others have that cannot move: with TLS, over HTTP/2, with
 * functions of on_close.
 *
 *   freeze ──▶ offer ──"taken"──▶ "yours" ──▶ it is there
 *                └─ end of the channel, too late ──▶ thaw: it is here
 *
 * Until "yours" is said the new worker reads and writes nothing, behind it the old one does not.
 */
#ifndef SERVER_HAND_OVER_H
#define SERVER_HAND_OVER_H

#include "io/io.h"
#include "server/acceptor.h"

enum { HAND_OVER_MAX_MS = 10000 }; /* beyond the grace period, if that is too short for it */

struct hand_over {
    struct io *io;
    struct acceptors *acceptors;
    int socket;        /* to the new program's workers; -1: there is none, or nobody reads it */
    struct timer look; /* for tunnels that may go now */
    struct list offers;
    uint32_t answer_ms;   /* 5,000: how long one may take to be answered */
    unsigned at_once;     /* so many offers may be under way: few where answers are late */
    unsigned offer_count; /* under way */
    int64_t begun_ms;
    bool waiting; /* some that may go have not been offered yet */
    unsigned moved;
    unsigned told; /* of these the log knows */
};

void hand_over_init(struct hand_over *over, struct io *io, struct acceptors *acceptors);

/* Begins; takes over the socket. */
void hand_over_begin(struct hand_over *over, int socket);

/* The worker ends its connections now: no more are offered. */
void hand_over_stop(struct hand_over *over);

/* Are there still tunnels to be offered, or to be answered for? Not after HAND_OVER_MAX_MS. */
bool hand_over_goes_on(const struct hand_over *over);

/* Is an offer still being tidied up? */
bool hand_over_busy(const struct hand_over *over);

#endif
