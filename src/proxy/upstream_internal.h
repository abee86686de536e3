/* The inside of struct upstream, for upstream.c and forward.c. */
#ifndef PROXY_UPSTREAM_INTERNAL_H
#define PROXY_UPSTREAM_INTERNAL_H

#include "proxy/balance.h"
#include "proxy/upstream.h"

enum { UPSTREAM_WAITERS_MAX = 1024 };

struct upstream {
    uint32_t users;
    struct io *io;
    struct arena arena; /* of the config's texts and the peers */
    struct upstream_config config;
    struct balancer balancer;
    struct list waiters; /* exchanges that wait for room under connections_max */
    uint32_t waiter_count;
    struct list waited_for; /* in the worker's list of upstreams with waiters; pick.c */
};

#endif
