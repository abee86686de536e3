#include "l4/udp_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

enum { BUCKETS_FIRST = 64 };

_Static_assert(sizeof(struct udp_key) % 8 == 0, "a key is hashed by words");

void udp_table_init(struct udp_table *table)
{
    *table = (struct udp_table){0};
    if (getrandom(table->secret, sizeof(table->secret), GRND_NONBLOCK) < 0)
        table->secret[0] = (uint64_t)clock_now_us(); /* too early in the boot for better */
}

void udp_table_fini(struct udp_table *table)
{
    assert(table->count == 0);
    free(table->buckets);
    table->buckets = NULL;
    table->bucket_count = 0;
}

static inline uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

uint64_t udp_table_hash(const struct udp_table *table, const struct udp_key *key)
{
    uint64_t words[sizeof(*key) / 8];
    const uint64_t *k = table->secret;
    uint64_t v[4] = {k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d,
                     k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573};
    memcpy(words, key, sizeof(words));
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static struct udp_entry **bucket_of(const struct udp_table *table, uint64_t hash)
{
    return &table->buckets[hash & (table->bucket_count - 1)];
}

static bool same_end(const struct udp_end *a, const struct udp_end *b)
{
    return memcmp(a->words, b->words, sizeof(a->words)) == 0;
}

struct udp_entry *udp_table_find(const struct udp_table *table, const struct udp_key *key,
                                 uint64_t hash)
{
    if (!table->count)
        return NULL;
    for (struct udp_entry *entry = *bucket_of(table, hash); entry; entry = entry->next)
        if (entry->hash == hash && same_end(&entry->key.client, &key->client) &&
            same_end(&entry->key.local, &key->local))
            return entry;
    return NULL;
}

static void insert(struct udp_table *table, struct udp_entry *entry)
{
    struct udp_entry **bucket = bucket_of(table, entry->hash);
    entry->next = *bucket;
    *bucket = entry;
}

static int grow(struct udp_table *table)
{
    struct udp_table grown = *table;
    grown.bucket_count = table->bucket_count ? table->bucket_count * 2 : BUCKETS_FIRST;
    grown.buckets = calloc(grown.bucket_count, sizeof(struct udp_entry *));
    if (!grown.buckets)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->bucket_count; i++)
        for (struct udp_entry *entry = table->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            insert(&grown, entry);
        }
    free(table->buckets);
    *table = grown;
    return 0;
}

int udp_table_add(struct udp_table *table, struct udp_entry *entry)
{
    if (table->count >= table->bucket_count && grow(table) < 0 && !table->bucket_count)
        return -ENOMEM; /* a full table that cannot grow only becomes slower */
    insert(table, entry);
    table->count++;
    return 0;
}

void udp_table_remove(struct udp_table *table, struct udp_entry *entry)
{
    struct udp_entry **at = bucket_of(table, entry->hash);
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    table->count--;
}
