/*
 * The shared dictionaries of a site (shared/dict.h), as the supervisor holds them: it makes their
 * memory, workers that it forks find it, those that run get it sent, and a program that takes over
 * (SIGUSR2) finds the descriptors. A generation that is being prepared says which it wants; what it
 * adds is fresh until it serves. Never suspends.
 */
#ifndef SERVER_MEMORIES_H
#define SERVER_MEMORIES_H

#include "shared/dict.h"

#include <stdbool.h>

enum { MEMORIES_MAX = 64, MEMORY_TEXT_MAX = 128 };

struct memory {
    struct shared_spec spec;
    int fd; /* owned */
    bool wanted;
    bool fresh;
};

struct memories {
    struct memory items[MEMORIES_MAX];
    unsigned count;
};

/* How the probe tells of a dictionary: "size evicts name". */
void memory_format(const struct shared_spec *spec, char text[MEMORY_TEXT_MAX]);

/* Makes what a generation wants and is not there yet. False with *error if that fails; then
 * memories_drop_fresh undoes what was done. */
bool memories_want(struct memories *memories, const char *const *texts, unsigned count, char *error,
                   size_t size);

/* That generation is not to be, or it serves. */
void memories_drop_fresh(struct memories *memories);
void memories_settle(struct memories *memories);

/* In a worker that was just forked: what there is can be opened, and nothing else. */
void memories_offer(struct memories *memories);

/* In the old program, between fork and exec: leaves them open, and the memory of the counters, and
 * tells the new one of all. */
void memories_leave(const struct memories *memories);

/* In the new program: takes what was left. */
void memories_read(struct memories *memories);

void memories_close(struct memories *memories);

#endif
