/*
 * A site: what one run of a site's script asked for. src/script fills it, src/server serves it.
 * One site is one generation; it is freed when its last exchange has ended.
 */
#ifndef PROXY_SITE_H
#define PROXY_SITE_H

#include "base/arena.h"
#include "http/exchange.h"
#include "http/listener_config.h"
#include "proxy/chain.h"
#include "proxy/upstream.h"

#include <stdbool.h>
#include <stdint.h>

struct site_listener {
    const char **addresses; /* as written; at least one */
    unsigned address_count;
    struct listener_config config;
    struct chain chain;
    const char *where; /* "site.lua:7", for messages */
};

struct site_upstream {
    struct upstream_config config;
    struct upstream *upstream; /* NULL in the probe, which opens none */
    const char *where;
};

struct site {
    struct arena arena; /* of everything below */
    const char *path;   /* the script */
    struct site_listener **listeners;
    unsigned listener_count;
    struct site_upstream **upstreams;
    unsigned upstream_count;
    uint32_t grace_ms;     /* 30,000: how long a drain may take; ml.options{grace=} */
    uint32_t users;        /* exchanges and the server that hold it */
    uint64_t generation;   /* 1, 2, ... */
    struct script *script; /* its Lua state; owned */
    /* Called when users reaches 0; frees the script and the site. */
    void (*destroy)(struct site *site);
    void *destroy_arg; /* for it */
};

void site_retain(struct site *site);
void site_release(struct site *site);

#endif
