/*
 * The flows of one listener and worker by their addresses. Clients choose what is hashed, so the
 * hash is keyed (SipHash-1-3). Grows by doubling. Never suspends.
 */
#ifndef L4_UDP_TABLE_H
#define L4_UDP_TABLE_H

#include "net/udp.h"

#include <stdint.h>

struct udp_key {
    struct udp_end client;
    struct udp_end local; /* where it sends to, so where answers come from */
};

/* An entry; first in what is found. */
struct udp_entry {
    struct udp_entry *next; /* in its bucket */
    struct udp_key key;
    uint64_t hash;
};

struct udp_table {
    struct udp_entry **buckets; /* owned */
    uint32_t bucket_count;      /* a power of two; 0: none yet */
    uint32_t count;
    uint64_t secret[2];
};

void udp_table_init(struct udp_table *table);

/* No entry may be left. */
void udp_table_fini(struct udp_table *table);

uint64_t udp_table_hash(const struct udp_table *table, const struct udp_key *key);

/* NULL: there is none. */
struct udp_entry *udp_table_find(const struct udp_table *table, const struct udp_key *key,
                                 uint64_t hash);

/* Adds an entry whose key and hash are set and are not in the table. Returns 0 or -ENOMEM. */
int udp_table_add(struct udp_table *table, struct udp_entry *entry);

void udp_table_remove(struct udp_table *table, struct udp_entry *entry);

#endif
