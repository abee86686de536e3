/*
 * The files of a site, handed from the probe to the workers: each runs what was probed, whatever
 * has become of the files meanwhile. They lie in anonymous memory, of which the supervisor holds
 * the descriptor only: there are private keys among them, which are thus no part of its own memory.
 */
#ifndef SERVER_SOURCES_H
#define SERVER_SOURCES_H

#include "script/script.h"

#include <stddef.h>

struct sources {
    struct script_source *files; /* owned; their texts lie in the memory */
    unsigned count;
    void *memory; /* mapped; NULL: none */
    size_t size;
};

/* Makes the memory. Returns its descriptor or a negative errno. */
int sources_create(void);

/* Appends a file. Returns 0 or a negative errno. */
int sources_add(int fd, const struct script_source *file);

/* Nobody can change it any more, whoever has a descriptor. Returns 0 or a negative errno. */
int sources_seal(int fd);

/* Maps what was written; closes the descriptor. Returns 0 or a negative errno. */
int sources_open(struct sources *sources, int fd);

void sources_close(struct sources *sources);

#endif
