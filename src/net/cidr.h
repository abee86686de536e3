/*
 * Sets of addresses given as prefixes ("10.0.0.0/8", "2001:db8::/32", "192.0.2.1"). A set is built
 * once and then only read: a trie whose nodes branch by up to six bits at once and skip the bits
 * that all below share, in one block of memory without pointers, so that it can be handed to other
 * processes as it is. A million random prefixes take some 15 bytes (IPv4) or 25 (IPv6) each, and
 * fewer where neighbours merge. Never suspends.
 */
#ifndef NET_CIDR_H
#define NET_CIDR_H

#include "base/slice.h"
#include "net/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cidr_family { CIDR_V4, CIDR_V6, CIDR_LOCAL };

struct cidr_prefix {
    uint64_t bits[2]; /* from the first bit on; 0 behind the prefix */
    uint8_t len;      /* bits: 0 to 32 or 128 */
    uint8_t family;   /* enum cidr_family */
    bool masked;      /* the text had bits behind the prefix, which do not count */
};

/*
 * Parses a prefix, an address (a prefix of full length) or "unix:" (every local socket). IPv6
 * prefixes within ::ffff:0:0/96 are IPv4 ones. Bits behind the prefix are cleared, as other proxies
 * do, and told of in `masked`. Returns 0, or -EINVAL; `*why` then says what is wrong, as a phrase.
 */
int cidr_parse(struct slice text, struct cidr_prefix *prefix, const char **why);

/* Prefixes that are to become a set. Zeroed: empty. */
struct cidr_builder {
    struct cidr_prefix *prefixes; /* owned */
    size_t count;
    size_t capacity;
    bool local;
};

/* Returns 0 or -ENOMEM. */
int cidr_builder_add(struct cidr_builder *builder, const struct cidr_prefix *prefix);

/* Frees what was added. */
void cidr_builder_fini(struct cidr_builder *builder);

struct cidr_set;

/* Makes a set of all that was added; prefixes that others cover vanish and neighbours merge. The
 * builder is left in an order of its own, to be finished. NULL when memory
 * is exhausted. */
struct cidr_set *cidr_set_create(struct cidr_builder *builder);

/* Frees it; NULL is fine. */
void cidr_set_destroy(struct cidr_set *set);

/* Is the address in the set? IPv4 addresses mapped to IPv6 are IPv4 addresses, so that "::/0" has
 * none of them. No address (len 0) is in no set. */
bool cidr_set_contains(const struct cidr_set *set, const struct address *address);

/* The same for an address as text, without a port. 1, 0, or -EINVAL if it is none. */
int cidr_set_contains_text(const struct cidr_set *set, struct slice text);

/* Several sets as one. */
struct cidr_sets {
    const struct cidr_set *const *sets;
    unsigned count;
};

bool cidr_sets_contain(const struct cidr_sets *sets, const struct address *address);

/* Prefixes that are left. */
size_t cidr_set_count(const struct cidr_set *set);

/* Bytes of the block that begins at `set`. */
size_t cidr_set_bytes(const struct cidr_set *set);

/* Do these bytes begin like such a block? */
bool cidr_is_block(struct slice bytes);

/* A copy of such a block (from another process of this program), at any alignment; NULL if it is
 * none or memory is exhausted. */
struct cidr_set *cidr_set_copy(struct slice block);

#endif
