/*
 * Whom a listener lets in: its options `allow`, `deny`, `connections_per_source` and `accept_rate`.
 * Asked when a connection is accepted, or a flow of datagrams begins, before anything is spent on
 * it. Where the client's address comes later (in a PROXY header), a connection begins without and
 * is asked about then. Never suspends.
 */
#ifndef HTTP_ADMISSION_H
#define HTTP_ADMISSION_H

#include "net/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct listener_config;

/* Of a listener in a worker. */
struct admission {
    struct limits limits;       /* counts that all workers share */
    int listener;               /* its place there */
    uint64_t denied;            /* refused: by allow and deny */
    uint64_t over_source_limit; /* refused: too many of their source */
};

/* Nothing is shared with anybody. */
void admission_init(struct admission *admission);

/* Counts among all workers as the listener of that name; before the first client. */
void admission_share(struct admission *admission, const struct limits *limits, const char *name);

/* May this client connect? If so, *source is what it is counted as from now on (0: nothing), until
 * admission_give. If not, that is counted and, now and then, logged. */
bool admission_check(struct admission *admission, const struct listener_config *config,
                     const struct address *remote, uint64_t *source);

/* How many connections or flows may begin now by accept_rate: UINT32_MAX without one. */
uint32_t admission_rate_left(const struct admission *admission,
                             const struct listener_config *config);

/* One has begun. */
void admission_rate_take(const struct admission *admission, const struct listener_config *config);

/* Counts one that is let in whatever stands against it; what it is counted as. */
uint64_t admission_count(const struct admission *admission, const struct listener_config *config,
                         const struct address *remote);

/* One of that source is gone; *source becomes 0. */
void admission_give(const struct admission *admission, uint64_t *source);

/* As admission_check for a connection whose stream.remote has become known; its place among those
 * of its source is given back when it closes. False: it is to be aborted. */
bool admission_enter(struct connection *connection);

/* The connection closes. */
void admission_leave(struct connection *connection);

#endif
