/* The table of flows: many of them, found and removed in any order. */
#include "l4/udp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <arpa/inet.h>
#include <cmocka.h>

enum { ENTRIES = 5000 };

static struct udp_entry entries[ENTRIES];

/* Neighbouring clients, of both families. */
static struct udp_key key_of(unsigned i)
{
    struct udp_key key = {0};
    if (i % 2) {
        key.client.v4.sin_family = AF_INET;
        key.client.v4.sin_port = htons((uint16_t)(1024 + i));
        key.client.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
        key.client.v6.sin6_family = AF_INET6;
        key.client.v6.sin6_port = htons((uint16_t)(1024 + i));
        key.client.v6.sin6_addr = in6addr_loopback;
    }
    key.local = key.client;
    key.local.v4.sin_port = htons(53);
    return key;
}

static void fill(struct udp_table *table)
{
    udp_table_init(table);
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct udp_key key = key_of(i);
        uint64_t hash = udp_table_hash(table, &key);
        assert_null(udp_table_find(table, &key, hash));
        entries[i] = (struct udp_entry){.key = key, .hash = hash};
        assert_int_equal(udp_table_add(table, &entries[i]), 0);
    }
    assert_int_equal(table->count, ENTRIES);
}

static struct udp_entry *find(const struct udp_table *table, unsigned i)
{
    struct udp_key key = key_of(i);
    return udp_table_find(table, &key, udp_table_hash(table, &key));
}

static void finds_what_was_added_until_it_is_removed(void **state)
{
    (void)state;
    struct udp_table table;
    fill(&table);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_ptr_equal(find(&table, i), &entries[i]);
    for (unsigned i = 0; i < ENTRIES; i += 3)
        udp_table_remove(&table, &entries[i]);
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_ptr_equal(find(&table, i), i % 3 ? &entries[i] : NULL);
    for (unsigned i = 0; i < ENTRIES; i++)
        if (i % 3)
            udp_table_remove(&table, &entries[i]);
    udp_table_fini(&table);
}

static void tells_apart_what_meets_in_a_bucket(void **state)
{
    (void)state;
    struct udp_table table;
    udp_table_init(&table);
    for (unsigned i = 0; i < 10; i++) { /* as if their hashes were the same */
        entries[i] = (struct udp_entry){.key = key_of(i), .hash = 7};
        assert_int_equal(udp_table_add(&table, &entries[i]), 0);
    }
    for (unsigned i = 0; i < 10; i++) {
        struct udp_key key = key_of(i);
        assert_ptr_equal(udp_table_find(&table, &key, 7), &entries[i]);
        udp_table_remove(&table, &entries[i]);
        assert_null(udp_table_find(&table, &key, 7));
    }
    udp_table_fini(&table);
}

/* SipHash of the same words under different secrets, so that nobody can choose those that meet. */
static void hashes_with_a_secret(void **state)
{
    (void)state;
    struct udp_table a, b;
    udp_table_init(&a);
    udp_table_init(&b);
    struct udp_key key = key_of(1);
    struct udp_key other = key_of(3);
    assert_true(udp_table_hash(&a, &key) == udp_table_hash(&a, &key));
    assert_true(udp_table_hash(&a, &key) != udp_table_hash(&a, &other));
    assert_true(udp_table_hash(&a, &key) != udp_table_hash(&b, &key));
    udp_table_fini(&a);
    udp_table_fini(&b);
}

/* No bucket is much fuller than others, although the clients are neighbours. */
static void spreads_neighbours(void **state)
{
    (void)state;
    struct udp_table table;
    fill(&table);
    unsigned longest = 0;
    for (uint32_t i = 0; i < table.bucket_count; i++) {
        unsigned length = 0;
        for (const struct udp_entry *entry = table.buckets[i]; entry; entry = entry->next)
            length++;
        longest = length > longest ? length : longest;
    }
    assert_true(longest < 16);
    for (unsigned i = 0; i < ENTRIES; i++)
        udp_table_remove(&table, &entries[i]);
    udp_table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_added_until_it_is_removed),
        cmocka_unit_test(tells_apart_what_meets_in_a_bucket),
        cmocka_unit_test(hashes_with_a_secret),
        cmocka_unit_test(spreads_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
