/*
 * A site: what one run of a site's script asked for. src/script fills it, src/server serves it.
 * One site is one generation; it is freed when its last exchange has ended.
 */
#ifndef PROXY_SITE_H
#define PROXY_SITE_H

#include "base/arena.h"
#include "http/exchange.h"
#include "proxy/chain.h"
#include "proxy/upstream.h"

#include <stdbool.h>
#include <stdint.h>

/* Limits and deadlines of a listener. Defaults stand in listener_config_init; times in ms. */
struct listener_config {
    uint32_t head_timeout_ms;      /* 10,000: first byte of a head to its end -> 408 */
    uint32_t body_timeout_ms;      /* 30,000: between two reads of a request body -> 408 */
    uint32_t send_timeout_ms;      /* 30,000: one send to the client without progress */
    uint32_t idle_timeout_ms;      /* 75,000: between requests */
    uint32_t total_timeout_ms;     /* 0: none; one whole exchange */
    uint32_t request_line_max_bytes; /* 8,192 -> 414 */
    uint32_t head_max_bytes;       /* 32,768 -> 431 */
    uint32_t header_count_max;     /* 100 -> 431 */
    uint64_t body_max_bytes;       /* 0: no bound -> 413 */
    uint32_t requests_max;         /* 0: no bound; requests per connection */
    uint32_t connections_max;      /* 0: no bound; per worker */
    const char *server_name;       /* Via pseudonym and Server; "monolake-lua" */
};

void listener_config_init(struct listener_config *config);

struct site_listener {
    const char **addresses;        /* as written; at least one */
    unsigned address_count;
    struct listener_config config;
    struct chain chain;
    const char *where;             /* "site.lua:7", for messages */
};

struct site_upstream {
    struct upstream_config config;
    struct upstream *upstream;     /* NULL in the probe, which opens none */
    const char *where;
};

struct site {
    struct arena arena;            /* of everything below */
    const char *path;              /* the script */
    struct site_listener **listeners;
    unsigned listener_count;
    struct site_upstream **upstreams;
    unsigned upstream_count;
    const char **files;            /* every file that was loaded, for --watch */
    unsigned file_count;
    uint32_t grace_ms;             /* 30,000: how long a drain may take; ml.options{grace=} */
    uint32_t users;                /* exchanges and the server that hold it */
    uint64_t generation;           /* 1, 2, ... */
    struct script *script;         /* its Lua state; owned */
    /* Called when users reaches 0; frees the script and the site. */
    void (*destroy)(struct site *site);
};

void site_retain(struct site *site);
void site_release(struct site *site);

#endif
