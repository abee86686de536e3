/*
 * The addresses that a site listens on, each with a socket for every worker. A generation that is
 * being prepared says which it wants; what it adds is fresh until it serves. Never suspends.
 */
#ifndef SERVER_BOUNDS_H
#define SERVER_BOUNDS_H

#include "net/address.h"
#include "server/options.h"

#include <stdbool.h>
#include <stddef.h>

enum { LISTENERS_MAX = 1024, LISTENER_KEY_MAX = 256 };

/* One bound address. */
struct bound {
    char key[LISTENER_KEY_MAX]; /* see listener_key in worker.h */
    struct address address;
    bool datagrams;       /* UDP */
    bool lent;            /* one socket, the service manager's (activation.h), and duplicates */
    int fds[WORKERS_MAX]; /* one per worker; kept for workers that are started again */
    bool wanted;          /* by the generation that is being prepared */
    bool fresh;           /* bound for that generation */
    bool announced;
    bool quiet;         /* nobody is queued any more: about to be closed */
    unsigned inherited; /* so many of the sockets come from the program before this one */
    unsigned adopted;   /* so many were taken by the program behind this one */
};

struct bounds {
    struct bound **items; /* owned */
    unsigned count;
    unsigned workers; /* sockets of each */
};

/* Binds what a generation wants and is not bound yet. False with *error if one cannot be; then
 * bounds_drop_fresh undoes what was done. */
bool bounds_want(struct bounds *bounds, const char *const *addresses, unsigned count, char *error,
                 size_t size);

/* That generation is not to be: closes what was bound for it. */
void bounds_drop_fresh(struct bounds *bounds);

/* That generation is about to serve: nobody is queued any more (see listener_quiesce) on what it
 * does not want. Workers that accept what is queued, and close, lose nobody. */
void bounds_quiesce_unwanted(struct bounds *bounds);

/* That generation serves: closes what it does not want. */
void bounds_settle(struct bounds *bounds);

/* Prints the addresses that have not been printed yet, with their real ports. */
void bounds_announce(struct bounds *bounds);

/* As bounds_quiesce_unwanted, for all. */
void bounds_quiesce(struct bounds *bounds);

/* SIGUSR2: notes that the new program has taken so many sockets of that key; NULL: none of any. */
void bounds_adopted(struct bounds *bounds, const char *key, unsigned count);

/* As bounds_quiesce, but for the sockets that the new program has taken. */
void bounds_hand_over(struct bounds *bounds);

/* Closes them all. */
void bounds_close(struct bounds *bounds);

#endif
