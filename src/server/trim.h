/*
 * Gives memory back that a worker needs no more. Once a second each pool frees half of what has
 * lain unused for that second; then, in a worker that is calm, malloc gives back what is free to
 * the kernel. Figures are in docs/design.md. Never suspends.
 */
#ifndef SERVER_TRIM_H
#define SERVER_TRIM_H

#include "io/io.h"
#include "proxy/site.h"

struct trim {
    struct io *io;
    struct site *const *site; /* that serves */
    struct timer timer;
    int64_t cpu_us;         /* that the process had computed by the last look */
    int64_t trimmed_cpu_us; /* and when malloc was last trimmed */
    int64_t not_before_us;  /* malloc is trimmed again */
    bool freed;             /* pools have given something back since then */
};

/* Begins to look, until trim_end. */
void trim_begin(struct trim *trim, struct io *io, struct site *const *site);

/* Ends that; to be called before the site goes. */
void trim_end(struct trim *trim);

#endif
