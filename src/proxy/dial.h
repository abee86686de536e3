/*
 * Connecting to an upstream for bytes of any protocol: picks a peer, tries others where it cannot
 * be reached, keeps their health. Suspends.
 */
#ifndef PROXY_DIAL_H
#define PROXY_DIAL_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct peer;
struct request;
struct stream;
struct upstream;
struct upstream_config;

/* One attempt to connect to a peer. Returns 0 or a negative errno: -EAGAIN if there is no room. */
struct dialer {
    int (*connect)(struct dialer *dialer, struct peer *peer, const struct upstream_config *config,
                   int64_t deadline);
};

/* Is it ourselves who cannot connect, whoever the peer is? Then no peer is to blame. */
bool dial_own_fault(int error);

/* What a failure to connect, a negative errno, means to an operator. */
const char *dial_reason(int error);

/* Connects to a peer, within connect_timeout for each attempt and the exchange's total deadline.
 * Returns 0 or a negative errno with *why in the request's arena: which peer, what happened.
 * -ECANCELED has no reason, -ETIMEDOUT means a deadline. What failed was logged. */
int upstream_dial_with(struct upstream *upstream, struct request *request, struct dialer *dialer,
                       struct slice *why);

/* As this for a started stream, which frees itself when it has closed. */
int upstream_dial(struct upstream *upstream, struct request *request, struct stream **out,
                  struct slice *why);

#endif
