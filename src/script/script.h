/*
 * The Lua side: one state per generation. Loading runs the site's script to its end and fills a
 * struct site; afterwards chains run Lua layers on the main stack (coro_on_main), each request in
 * pooled Lua coroutines. lua.h is included nowhere but in this folder.
 */
#ifndef SCRIPT_SCRIPT_H
#define SCRIPT_SCRIPT_H

#include "base/slice.h"
#include "proxy/site.h"

#include <stdbool.h>

struct io;

/* A file of a site, as it was when it was loaded. */
struct script_source {
    const char *path;
    const char *text;
    size_t len;
    bool secret; /* has private keys: no text for Lua */
};

struct script_options {
    struct io *io; /* NULL in the probe: nothing is opened or connected */
    uint64_t generation;
    bool probe; /* -t and the check before a reload */
    /* The script is interrupted after that; 0: never. Its code is not compiled then: compiled loops
     * cannot be interrupted. One script of a process may have it at a time. */
    uint32_t time_max_ms;
    /* Is called often while the site is loaded, and may take its time; NULL: is not. Nobody may use
     * this state meanwhile, but others may be used. */
    void (*pause)(void *arg);
    void *pause_arg;
    /* Hears of each file before it is run; may be NULL. */
    void (*on_file)(void *arg, const struct script_source *file);
    void *on_file_arg;
    /* Taken instead of the files of that name. */
    const struct script_source *sources;
    unsigned source_count;
};

/* Compiles and runs the script at `path`. Returns the site (users = 1), or NULL with *error: a
 * malloc'ed text "file:line: message" followed by a traceback. */
struct site *script_load_site(const char *path, const struct script_options *options, char **error);

/* Frees a site that has no users: what its `destroy` is for, unless that is replaced. `pause` is as
 * of script_options. */
void script_close_site(struct site *site, void (*pause)(void *arg), void *arg);

/* Does its Lua hold more than nine tenths of lua_memory_max, though all garbage was collected? This
 * one is cheap to ask after every turn: it says what the last collection has left. */
bool script_memory_over(const struct site *site);

/* Collects its garbage and says what is left, and what may be. Only while none of its Lua runs. */
struct script_memory_use {
    uint64_t used;
    uint64_t max;
    uint64_t all; /* used by all generations of this process */
};
struct script_memory_use script_memory_collect(struct site *site);

/* For calm times: gives back what its Lua needs no more, bit by bit. Takes at most a millisecond.
 * Only while none of its Lua runs. */
void script_trim(struct site *site);

/* The summary tree that -t prints: listeners, chains, upstreams. Writes to `out`. */
struct slice site_describe(struct site *site, struct arena *arena);

#endif
