/*
 * Connecting to an upstream for bytes of any protocol: picks a peer, tries others where it cannot
 * be reached, keeps their health. Suspends.
 */
#ifndef PROXY_DIAL_H
#define PROXY_DIAL_H

#include "base/slice.h"

struct request;
struct stream;
struct upstream;

/* Connects to a peer, within connect_timeout for each attempt and the exchange's total deadline.
 * Returns 0 with a started stream, which frees itself when it has closed, or a negative errno with
 * *why in the request's arena: which peer, what happened. -ECANCELED has no reason, -ETIMEDOUT
 * means a deadline. What failed was logged. */
int upstream_dial(struct upstream *upstream, struct request *request, struct stream **out,
                  struct slice *why);

#endif
