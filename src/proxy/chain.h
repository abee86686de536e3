/*
 * Chains: an array of layers in which each calls the next. Built once a generation, never per
 * request. A chain holds native layers only; a run of neighbouring Lua functions is one native
 * layer of src/script.
 */
#ifndef PROXY_CHAIN_H
#define PROXY_CHAIN_H

#include "base/arena.h"
#include "http/message.h"
#include "monolake.h"

#include <stdbool.h>
#include <stddef.h>

/* One place in a chain. `describe` writes what -t prints, e.g. "router 4 routes"; may be NULL. */
struct chain_step {
    const ml_layer *layer;
    void *self;                /* the layer's instance; freed by layer->destroy */
    const char *label;         /* for the summary tree, e.g. "lua site.lua:9" */
    const struct chain **subs; /* NULL-terminated sub-chains (routes), or NULL; for the tree */
    const char *const *sub_labels;
};

struct chain {
    struct chain_step *steps; /* in the arena of the site */
    size_t count;
};

/* What ml_next_call continues with: lives on the stack of the caller of the layer. */
struct ml_next {
    const struct chain *chain;
    size_t index;         /* step to run */
    struct ml_next *then; /* what follows when this chain has no more steps, or NULL */
};

/* Runs a request through a chain; where no layer answers the response is a 404. */
struct response *chain_run(const struct chain *chain, struct request *request);

/* Runs `chain` and, behind its last step, continues with `then` (a router's sub-chain inside its
 * parent). */
struct response *chain_run_then(const struct chain *chain, struct request *request,
                                struct ml_next *then);

#endif
