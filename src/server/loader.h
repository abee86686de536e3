/*
 * Loads generations of the site in a worker, at once or in slices between the turns of its loop,
 * and closes those that nobody uses any more in slices (background.h).
 */
#ifndef SERVER_LOADER_H
#define SERVER_LOADER_H

#include "proxy/site.h"
#include "server/background.h"

#include <stdbool.h>
#include <stdint.h>

struct io;

enum loader_state {
    LOADER_IDLE,
    LOADER_BUSY,
    LOADER_DONE, /* what was loaded is to be taken */
};

struct loader {
    struct io *io;
    const char *path; /* of the script */
    struct background background;
    enum loader_state state;
    struct background_job job;
    uint64_t generation; /* that is loaded in slices */
    int sources;         /* from the files behind this descriptor; owned */
    struct site *site;   /* once that is done, or NULL; owned */
    char *error;         /* then, if there is no site; owned */
};

void loader_init(struct loader *loader, struct io *io, const char *path);

/* Loads it now, from the files behind the descriptor, which is closed. NULL with *error (malloc'ed)
 * if that fails. */
struct site *loader_load(struct loader *loader, uint64_t generation, int sources, char **error);

/* Begins to load it in slices. Only when idle. */
void loader_begin(struct loader *loader, uint64_t generation, int sources);

/* Takes what was loaded, if that is done: as of loader_load. */
struct site *loader_take(struct loader *loader, char **error);

/* Gives up what is loaded in slices, if anything is. */
void loader_drop(struct loader *loader);

#endif
