/*
 * The layer that answers CONNECT with a tunnel to where the client wants to go, if that is allowed
 * (RFC 9110 section 9.3.6); other requests pass on. Suspends.
 */
#ifndef PROXY_CONNECT_H
#define PROXY_CONNECT_H

#include "base/arena.h"
#include "monolake.h"

#include <stdint.h>

struct connect_config {
    const char *
        *allow; /* "host:port": the host may be "*" or begin with "*.", the port may be "*" */
    unsigned allow_count;
    uint32_t connect_timeout_ms;
};

/* The layer's self, in the arena, which holds the config's texts too. NULL when memory is exhausted
 * or, with *error, when a pattern is wrong. */
struct connect *connect_create(struct arena *arena, const struct connect_config *config,
                               const char **error);

extern const ml_layer connect_layer;

#endif
