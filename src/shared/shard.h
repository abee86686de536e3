/*
 * A part of a dictionary that processes share: entries in blocks of equal size, an index of them by
 * key, and their order of use. The caller holds the shard's lock. Never suspends.
 *
 *   ┌ lock, counts, lists ┬ buckets of the index ┬ block ┬ block ┬ ...
 *
 * An entry is a head block and, where it is longer, further ones behind it. Whoever holds the lock
 * may be killed at any instruction. So nothing but the heads' and blocks' own marks counts as the
 * truth, and these are written in an order in which every moment is a valid one: an entry is
 * written whole before it is marked as alive, and is marked as dead before its blocks are touched.
 * A change is a new entry with a higher version, after which the old one dies. All else (index,
 * order, free blocks, counts) is made anew from the marks by shard_repair.
 */
#ifndef SHARED_SHARD_H
#define SHARED_SHARD_H

#include "base/slice.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum shared_type { SHARED_NONE, SHARED_STRING, SHARED_NUMBER, SHARED_BOOLEAN };

struct shared_value {
    enum shared_type type;
    double number;      /* of a number; a boolean's is 0 or 1 */
    struct slice bytes; /* of a string */
};

struct shard {
    pthread_mutex_t lock; /* robust */
    uint64_t version;     /* of the entry that was written last */
    uint32_t block_count;
    uint32_t bucket_count; /* a power of two */
    uint32_t entries;
    uint32_t free_blocks;
    uint32_t first_free; /* this and all below: 1 + the index of a block; 0: none */
    uint32_t fresh;      /* blocks from here on were never used */
    uint32_t newest;     /* most recently used */
    uint32_t oldest;
    uint32_t swept;   /* where to look next for entries whose time is over */
    bool evicts;      /* entries that were not used for long make room for others */
    int64_t lap_ms;   /* when all was last swept */
    uint64_t evicted; /* since it was made, this and below */
    uint64_t expired;
    uint64_t repaired;
    uint64_t hits;
    uint64_t misses;
    uint32_t buckets[];
};

enum { SHARED_BLOCK_BYTES = 128 };

/* In zeroed memory; without the lock. */
void shard_init(struct shard *shard, size_t bytes, bool evicts);

/* Whoever held the lock has died: makes it whole. May be interrupted in turn, and begun again. */
void shard_repair(struct shard *shard);

/* Where an entry is, by its key and the key's hash; 0: there is none, or its time is over. */
uint32_t shard_find(struct shard *shard, struct slice key, uint32_t hash, int64_t now_ms);

/* Of an entry that was found. A string's bytes are copied to `bytes`, which has room for
 * shard_string_bytes. */
uint32_t shard_string_bytes(const struct shard *shard, uint32_t at);
void shard_read(const struct shard *shard, uint32_t at, struct shared_value *value, char *bytes);
int64_t shard_expires_ms(const struct shard *shard, uint32_t at);
void shard_set_expires(struct shard *shard, uint32_t at, int64_t expires_ms);
void shard_set_number(struct shard *shard, uint32_t at, double number);

/* Makes it the last one to be evicted. */
void shard_touch(struct shard *shard, uint32_t at);

void shard_remove(struct shard *shard, uint32_t at);

/* Puts an entry in, in place of the one with that key. Returns 0, -ENOSPC, or -EMSGSIZE: it could
 * never have the room. */
int shard_put(struct shard *shard, struct slice key, uint32_t hash,
              const struct shared_value *value, int64_t expires_ms, int64_t now_ms);

/* Removes all. */
void shard_flush(struct shard *shard);

/* Removes what is over now; an effort of the size of the shard. */
void shard_sweep(struct shard *shard, int64_t now_ms);

/* The longest key and string together. */
uint32_t shard_bytes_max(const struct shard *shard);

#endif
