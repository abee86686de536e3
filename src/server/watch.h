/* Hears of changes to files (--watch). Editors replace files, so their directories are watched. */
#ifndef SERVER_WATCH_H
#define SERVER_WATCH_H

#include <stdbool.h>

struct watch {
    int fd;           /* readable when something happened; -1: off */
    char **files;     /* owned copies of their paths */
    int *directories; /* inotify descriptors of their directories */
    unsigned count;
};

/* Opens it. Returns 0 or a negative errno. */
int watch_init(struct watch *watch);

/* Watches these files, and no others. */
void watch_set(struct watch *watch, char *const *files, unsigned count);

/* Reads what happened. True if it concerns one of the files. */
bool watch_changed(struct watch *watch);

void watch_fini(struct watch *watch);

#endif
