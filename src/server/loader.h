/*
 * Loads a generation of the site in a worker: at once, or in slices between the turns of its loop.
 * A request waits for a slice no longer than for the requests of a turn, however long a site takes
 * to be loaded.
 */
#ifndef SERVER_LOADER_H
#define SERVER_LOADER_H

#include "proxy/site.h"

#include <stdbool.h>
#include <stdint.h>

struct coro;
struct io;

struct loader {
    struct io *io;
    const char *path;    /* of the script */
    bool busy;           /* one is being loaded in slices: */
    uint64_t generation; /* this one */
    int sources;         /* from the files behind this descriptor; owned */
    struct coro *job;    /* NULL: it has come to its end */
    struct site *site;   /* then, or NULL */
    char *error;         /* then, if there is no site; owned */
    int64_t paused_us;
    int64_t until_us; /* of the slice */
};

void loader_init(struct loader *loader, struct io *io, const char *path);

/* Loads it now, from the files behind the descriptor, which is closed. NULL with *error (malloc'ed)
 * if that fails. */
struct site *loader_load(struct loader *loader, uint64_t generation, int sources, char **error);

/* Begins to load it in slices, if there is memory for that, else loads it now. Not while busy. */
void loader_begin(struct loader *loader, uint64_t generation, int sources);

/* Goes on for a slice. True: it has come to its end, and *site and *error are as of loader_load. */
bool loader_step(struct loader *loader, struct site **site, char **error);

/* Goes on to the end and drops what has been loaded. */
void loader_drop(struct loader *loader);

#endif
