/*
 * Dictionaries that processes share: strings, numbers and booleans by key, with bounded memory and
 * times after which they are gone. Each lies in a memfd that tells what it is, so that whoever has
 * the descriptor can use it: workers that are forked or get it sent, and a program that takes over.
 *
 *   ┌ header: layout, name, size, secret of the hash ┬ shard ┬ shard ┬ ...
 *
 * A shard has a lock of its own, which the kernel takes from a process that dies: the next one to
 * lock it repairs it (shard.h). Never suspends; a lock is waited for at most SHARED_WAIT_MS, for
 * its holder may be stopped (by a debugger, say), and nobody shall stand still with it.
 */
#ifndef SHARED_DICT_H
#define SHARED_DICT_H

#include "shared/shard.h"

enum {
    SHARED_NAME_MAX = 64,
    SHARED_KEY_MAX = 65535,
    SHARED_WAIT_MS = 50,
};

#define SHARED_SIZE_MIN (UINT64_C(64) << 10)
#define SHARED_SIZE_MAX (UINT64_C(64) << 30)

/* What a dictionary is known by. */
struct shared_spec {
    char name[SHARED_NAME_MAX];
    uint64_t size; /* of its memory, bytes */
    bool evicts;
};

struct shared_dict;

struct shared_stats {
    uint64_t entries; /* those included that are over and not swept yet */
    uint64_t bytes_used;
    uint64_t bytes;
    uint64_t evicted; /* since it was made, this and below */
    uint64_t expired;
    uint64_t hits;
    uint64_t misses;
    uint64_t repaired; /* times that a process died with a lock held */
};

/* Makes an empty one. Returns its descriptor or a negative errno. */
int shared_create(const struct shared_spec *spec);

/* What lies behind a descriptor. Returns 0, -EPROTO: no dictionary, or -EPROTONOSUPPORT: one of a
 * layout that is not known here. */
int shared_inspect(int fd, struct shared_spec *spec);

/* Maps it; the descriptor stays the caller's. NULL with errno when that fails. */
struct shared_dict *shared_map(int fd);
void shared_unmap(struct shared_dict *dict);

const struct shared_spec *shared_spec_of(const struct shared_dict *dict);

enum shared_how { SHARED_SET, SHARED_ADD, SHARED_REPLACE };

/* All of these return a negative errno when they fail: -EBUSY, a lock was not to be had; -ENOSPC,
 * it is full and evicts nothing; -EMSGSIZE, the key or the value is too long; -ENOMEM. */

/* 1, or 0: there is none. A string's bytes are valid until the next call, of any dictionary. */
int shared_get(struct shared_dict *dict, struct slice key, struct shared_value *value);

/* 1; 0: nothing was done, for it is there already (SHARED_ADD) or is not (SHARED_REPLACE). It is
 * gone after ttl_ms; 0: it stays. */
int shared_put(struct shared_dict *dict, enum shared_how how, struct slice key,
               const struct shared_value *value, int64_t ttl_ms);

/* Adds to a number, and to *init (with that time to live) where there is none. 1 with *sum; 0:
 * there is none, and no init; -EINVAL: it is no number. */
int shared_incr(struct shared_dict *dict, struct slice key, double by, const double *init,
                int64_t ttl_ms, double *sum);

/* 1; 0: there was none. */
int shared_delete(struct shared_dict *dict, struct slice key);

/* 1 with how long it stays, -1: for ever; 0: there is none. */
int shared_ttl(struct shared_dict *dict, struct slice key, int64_t *left_ms);

/* Changes that; 0: for ever. 1; 0: there is none. */
int shared_expire(struct shared_dict *dict, struct slice key, int64_t ttl_ms);

/* Removes all. 0. */
int shared_flush(struct shared_dict *dict);

/* Removes what is over, and sums up. 0. */
int shared_stats(struct shared_dict *dict, struct shared_stats *stats);

/* For tests: calls `fn` with a shard locked. */
void shared_with_lock(struct shared_dict *dict, struct slice key, void (*fn)(struct shard *shard));

#endif
