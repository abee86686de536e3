/* The files of a site, handed from the probe to the workers: each runs what was probed, whatever
 * has become of the files meanwhile. They travel as a descriptor of anonymous memory. */
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

/* Writes the files to new memory. Returns its descriptor or a negative errno. */
int sources_share(const struct script_source *files, unsigned count);

/* Maps what was written; closes the descriptor. Returns 0 or a negative errno. */
int sources_open(struct sources *sources, int fd);

void sources_close(struct sources *sources);

#endif
