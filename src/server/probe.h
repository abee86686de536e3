/*
 * The probe: a child process that runs a site's script before anybody depends on it. Whatever the
 * script does (fail, loop, crash, eat memory) happens there, and comes back as words. Never
 * suspends; the parent polls probe.fd.
 */
#ifndef SERVER_PROBE_H
#define SERVER_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "script/script.h"

/* What the supervisor needs to know of a site; all texts are owned. */
struct probe_result {
    char **addresses; /* of all listeners, as written */
    unsigned address_count;
    char **memories; /* shared dictionaries that it wants; see server/memories.h */
    unsigned memory_count;
    char **files; /* names of those that the script loaded, or tried to */
    unsigned file_count;
    int sources; /* what is in them; see server/sources.h. 0: nothing (which is standard input) */
    uint32_t grace_ms;
    char *summary; /* the tree that -t prints */
    char *error;   /* NULL: all is well; else why not */
};

struct probe {
    pid_t pid;           /* 0: none is running */
    int fd;              /* readable: its report */
    int sources;         /* its files, which it writes there */
    uint32_t timeout_ms; /* for the script; the process gets a little more */
    int64_t deadline;
    char *report; /* gathered so far; owned */
    size_t len;
    size_t capacity;
    bool too_large; /* there was no memory for the rest */
};

/* Starts one on a script that may take so long. Returns 0 or a negative errno. */
int probe_start(struct probe *probe, const char *site, uint32_t timeout_ms);

/* To be called when probe->fd is readable or its deadline has passed. Returns true when it has
 * ended; *result then says how, and belongs to the caller. */
bool probe_step(struct probe *probe, struct probe_result *result);

/* Runs one to its end. */
void probe_run(const char *site, uint32_t timeout_ms, struct probe_result *result);

void probe_result_free(struct probe_result *result);

#endif
