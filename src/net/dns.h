/*
 * Name resolution without blocking the worker: c-ares, driven by polls and timers of the loop.
 * Honours /etc/hosts. A question waits 1 s for each server, and 2 s for each the second time,
 * before it has no answer, whatever /etc/resolv.conf says. Suspends.
 */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "io/io.h"
#include "net/address.h"

#include <stdint.h>

/* Resolves `host` (NUL-terminated) to up to `max` addresses with `port`. Returns their number and
 * *ttl_s (the smallest, in seconds), or a negative errno: -ENOENT no such name, -EHOSTUNREACH no
 * server answered properly, -ETIMEDOUT, -ECANCELED, -ENOMEM. */
int dns_resolve(struct io *io, const char *host, uint16_t port, struct address *out, unsigned max,
                unsigned *ttl_s, int64_t deadline);

#endif
