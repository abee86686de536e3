/*
 * A worker: one process, one event loop, one core. Serves the listeners that it is handed, builds a
 * new generation beside the present one when told to, and swaps at a word.
 */
#ifndef SERVER_WORKER_H
#define SERVER_WORKER_H

#include "io/io.h"
#include "net/limits.h"
#include "script/script.h"

#include <stdint.h>

/* A listening socket for this worker. The key tells it apart from others: the address as written,
 * with "#2" behind the second one with port 0 of the same text, and so on. */
struct worker_listener {
    const char *key;
    int fd; /* owned by the worker from now on */
};

struct worker_options {
    unsigned index;
    int cpu; /* to pin to, or -1 */
    const char *site;
    /* The files of the generation to begin with, as they were when that began to serve: what has
     * become of them since may not work. */
    int sources; /* see server/sources.h; owned by the worker from now on */
    enum io_kind io;
    uint64_t generation;        /* to begin with */
    int control;                /* its end of the control socket */
    uint32_t script_timeout_ms; /* how long a layer may hold it up */
    const struct worker_listener *listeners;
    unsigned listener_count;
    int tunnels; /* the program before this one offers its tunnels there; -1: there is none */
    struct limits limits; /* counts that it shares with the others */
};

/* Runs it. Returns the process's exit code. */
int worker_main(const struct worker_options *options);

/* The key of the listener with that address among those before it: see above. Writes up to `size`
 * bytes. */
void listener_key(const char *const *addresses, unsigned index, char *key, unsigned size);

#endif
