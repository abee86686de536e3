/* Hears of changes to files (--watch). Editors replace files, so their directories are watched. */
#ifndef SERVER_WATCH_H
#define SERVER_WATCH_H

#include <stdbool.h>

struct watched_file {
    char *path;    /* owned */
    int directory; /* inotify's descriptor of its directory */
};

struct watch {
    int fd; /* readable when something happened; -1: off */
    struct watched_file *files;
    unsigned count;
};

/* Opens it. Returns 0 or a negative errno. */
int watch_init(struct watch *watch);

/* Watches one more file. */
void watch_add(struct watch *watch, const char *file);

/* Watches none. */
void watch_clear(struct watch *watch);

/* Reads what happened. True if it concerns one of the files. */
bool watch_changed(struct watch *watch);

void watch_fini(struct watch *watch);

#endif
