/*
 * A node looks at `stride` bits from `offset` on:
 *
 *        offset 8, stride 6        skipped bits are compared at the leaf only: there is one prefix
 *        ┌────┬────┬────┬ ─ ─      that may match, and its leaf has all of its bits
 *        │ 00 │ 01 │ 02 │
 *        └─┬──┴────┴─┬──┴ ─ ─      inner:  bits of the slots with a node below
 *          ▼         ▼             leaves: bits of those with a prefix
 *        leaf       node
 *
 * A stride never passes the end of a prefix below, so each has one leaf. A node's nodes follow each
 * other, and so do its leaves; the place of one is the number of bits before its own.
 */
#include "net/cidr.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    STRIDE_MAX = 6,
    V4_BITS = 32,
    V6_BITS = 128,
    LENGTH_DIGITS_MAX = 3,
    LARGE_BYTES = 1 << 20, /* blocks that the heap would keep when they are freed */
};

#define SET_MAGIC 0x6d6c636964723031ULL

struct node {
    uint64_t inner;
    uint64_t leaves;
    uint32_t first_inner;
    uint32_t first_leaf;
    uint8_t offset;
    uint8_t stride;
};

/* The trie of a family; its arrays lie at these distances (bytes) from the set. */
struct trie {
    uint64_t nodes;   /* struct node; the first is the root */
    uint64_t keys;    /* uint64_t, `words` for each leaf; an IPv4 one has its length below */
    uint64_t lengths; /* uint8_t, for each leaf of IPv6 */
    uint32_t node_count;
    uint32_t leaf_count;
    uint32_t words; /* 1 or 2 */
    bool all;       /* the prefix of length 0: the trie is empty */
};

struct cidr_set {
    uint64_t magic;
    uint64_t bytes;
    struct trie tries[2]; /* by enum cidr_family */
    bool local;
};

static const struct slice local_text = SLICE_INIT("unix:");

/* --- Bits ------------------------------------------------------------------------------------- */

/* `width` bits (1 to 6) from `offset` on. */
static unsigned bits_at(const uint64_t bits[2], unsigned offset, unsigned width)
{
    uint64_t from;
    if (offset >= 64)
        from = bits[1] << (offset - 64);
    else
        from = offset ? bits[0] << offset | bits[1] >> (64 - offset) : bits[0];
    return (unsigned)(from >> (64 - width));
}

/* Ones in the first `len` bits of a word. */
static uint64_t mask(unsigned len)
{
    if (len >= 64)
        return UINT64_MAX;
    return len ? UINT64_MAX << (64 - len) : 0;
}

static unsigned len_of_word(unsigned len, unsigned word)
{
    return len > word * 64 ? len - word * 64 : 0;
}

/* How many bits are set. Unless it is told of a processor's instruction for that, the compiler
 * calls a function with a table, with which a look-up takes half as long again. */
static uint32_t count_bits(uint64_t bits)
{
    bits -= bits >> 1 & 0x5555555555555555;
    bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
    bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (uint32_t)(bits * 0x0101010101010101 >> 56);
}

/* How many bits both begin with. */
static unsigned common_len(const uint64_t a[2], const uint64_t b[2])
{
    if (a[0] != b[0])
        return (unsigned)__builtin_clzll(a[0] ^ b[0]);
    return a[1] != b[1] ? 64 + (unsigned)__builtin_clzll(a[1] ^ b[1]) : V6_BITS;
}

static bool is_mapped(const uint64_t bits[2])
{
    return bits[0] == 0 && bits[1] >> 32 == 0xffff;
}

static void unmap(uint64_t bits[2])
{
    bits[0] = bits[1] << 32;
    bits[1] = 0;
}

static void load_v4(const struct in_addr *in, uint64_t bits[2])
{
    bits[0] = (uint64_t)ntohl(in->s_addr) << 32;
    bits[1] = 0;
}

static void load_v6(const struct in6_addr *in, uint64_t bits[2])
{
    memcpy(bits, in, sizeof(*in));
    bits[0] = be64toh(bits[0]);
    bits[1] = be64toh(bits[1]);
}

/* --- Text ------------------------------------------------------------------------------------- */

static int fail(const char **why, const char *phrase)
{
    *why = phrase;
    return -EINVAL;
}

/* Returns the family or -EINVAL. */
static int parse_ip(struct slice text, uint64_t bits[2])
{
    char copy[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct in6_addr v6;
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
        return -EINVAL;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, &v4) == 1) {
        load_v4(&v4, bits);
        return CIDR_V4;
    }
    if (inet_pton(AF_INET6, copy, &v6) != 1)
        return -EINVAL;
    load_v6(&v6, bits);
    return CIDR_V6;
}

static int parse_len(struct slice text, unsigned max, uint8_t *len, const char **why)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > LENGTH_DIGITS_MAX)
        return fail(why, "has no length of a prefix behind the \"/\"");
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return fail(why, "has a length of the prefix that is no number");
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
    }
    if (value > max)
        return fail(why, max == V4_BITS ? "has a prefix of more than 32 bits"
                                        : "has a prefix of more than 128 bits");
    *len = (uint8_t)value;
    return 0;
}

static void clear_behind(struct cidr_prefix *prefix)
{
    for (unsigned word = 0; word < 2; word++) {
        uint64_t kept = prefix->bits[word] & mask(len_of_word(prefix->len, word));
        prefix->masked |= kept != prefix->bits[word];
        prefix->bits[word] = kept;
    }
}

int cidr_parse(struct slice text, struct cidr_prefix *prefix, const char **why)
{
    *prefix = (struct cidr_prefix){0};
    if (slice_equal(text, local_text)) {
        prefix->family = CIDR_LOCAL;
        return 0;
    }
    const char *slash = text.len ? memchr(text.ptr, '/', text.len) : NULL;
    struct slice ip = slice_of(text.ptr, slash ? (size_t)(slash - text.ptr) : text.len);
    int family = parse_ip(ip, prefix->bits);
    if (family < 0)
        return fail(why, "is no IP address or prefix (\"10.0.0.0/8\", \"2001:db8::/32\")");
    unsigned max = family == CIDR_V4 ? V4_BITS : V6_BITS;
    prefix->family = (uint8_t)family;
    prefix->len = (uint8_t)max;
    int result =
        slash ? parse_len(slice_of(slash + 1, text.len - ip.len - 1), max, &prefix->len, why) : 0;
    if (result < 0)
        return result;
    if (family == CIDR_V6 && is_mapped(prefix->bits)) {
        if (prefix->len < V6_BITS - V4_BITS)
            return fail(why, "reaches beyond the IPv4 addresses in ::ffff:0:0/96");
        unmap(prefix->bits);
        prefix->family = CIDR_V4;
        prefix->len = (uint8_t)(prefix->len - (V6_BITS - V4_BITS));
    }
    clear_behind(prefix);
    return 0;
}

/* --- Building --------------------------------------------------------------------------------- */

/* The nodes and leaves of a trie as they grow. */
struct growing {
    const struct cidr_prefix *prefixes; /* sorted, none within another */
    struct node *nodes;
    uint32_t node_count;
    uint32_t node_capacity;
    uint32_t leaf_count;
    uint32_t *leaves; /* indexes of prefixes */
};

int cidr_builder_add(struct cidr_builder *builder, const struct cidr_prefix *prefix)
{
    if (prefix->family == CIDR_LOCAL) {
        builder->local = true;
        return 0;
    }
    if (builder->count == builder->capacity) {
        size_t capacity = builder->capacity ? builder->capacity + builder->capacity / 2 : 16;
        struct cidr_prefix *grown = capacity > UINT32_MAX / 2
                                        ? NULL
                                        : realloc(builder->prefixes, capacity * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        builder->prefixes = grown;
        builder->capacity = capacity;
    }
    builder->prefixes[builder->count++] = *prefix;
    return 0;
}

void cidr_builder_fini(struct cidr_builder *builder)
{
    free(builder->prefixes);
    *builder = (struct cidr_builder){0};
}

static int compare(const void *left, const void *right)
{
    const struct cidr_prefix *a = left;
    const struct cidr_prefix *b = right;
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    for (unsigned word = 0; word < 2; word++)
        if (a->bits[word] != b->bits[word])
            return a->bits[word] < b->bits[word] ? -1 : 1;
    return (int)a->len - (int)b->len;
}

static bool covers(const struct cidr_prefix *outer, const struct cidr_prefix *inner)
{
    return outer->family == inner->family && outer->len <= inner->len &&
           common_len(outer->bits, inner->bits) >= outer->len;
}

/* Do both halve the same prefix? */
static bool are_halves(const struct cidr_prefix *a, const struct cidr_prefix *b)
{
    return a->family == b->family && a->len == b->len && a->len &&
           common_len(a->bits, b->bits) + 1 == a->len;
}

/* Sorts, drops what is covered and merges halves. */
static void normalize(struct cidr_builder *builder)
{
    struct cidr_prefix *prefixes = builder->prefixes;
    size_t kept = 0;
    if (builder->count)
        qsort(prefixes, builder->count, sizeof(*prefixes), compare);
    for (size_t i = 0; i < builder->count; i++) {
        struct cidr_prefix prefix = prefixes[i];
        if (kept && covers(&prefixes[kept - 1], &prefix))
            continue;
        while (kept && are_halves(&prefixes[kept - 1], &prefix)) {
            prefix = prefixes[--kept]; /* the lower one has the bits of both */
            prefix.len--;
        }
        prefixes[kept++] = prefix;
    }
    builder->count = kept;
}

static int add_nodes(struct growing *trie, uint32_t count)
{
    if (trie->node_capacity - trie->node_count < count) {
        uint32_t capacity = trie->node_capacity + trie->node_capacity / 2 + 64;
        struct node *grown = realloc(trie->nodes, capacity * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        trie->nodes = grown;
        trie->node_capacity = capacity;
    }
    memset(trie->nodes + trie->node_count, 0, count * sizeof(*trie->nodes));
    trie->node_count += count;
    return 0;
}

/* Where the node of these prefixes branches. */
static struct node branch(const struct cidr_prefix *prefixes, uint32_t count)
{
    unsigned len_min = V6_BITS;
    for (uint32_t i = 0; i < count; i++)
        len_min = prefixes[i].len < len_min ? prefixes[i].len : len_min;
    unsigned offset = common_len(prefixes[0].bits, prefixes[count - 1].bits);
    if (offset >= len_min)
        offset = len_min - 1; /* one prefix alone */
    unsigned stride = len_min - offset < STRIDE_MAX ? len_min - offset : STRIDE_MAX;
    return (struct node){.offset = (uint8_t)offset, .stride = (uint8_t)stride};
}

/* How many of these prefixes fall into the slot of the first. */
static uint32_t count_in_slot(const struct node *node, const struct cidr_prefix *prefixes,
                              uint32_t count)
{
    unsigned slot = bits_at(prefixes[0].bits, node->offset, node->stride);
    uint32_t same = 1;
    while (same < count && bits_at(prefixes[same].bits, node->offset, node->stride) == slot)
        same++;
    return same;
}

/* Fills in the node of prefixes [first, first + count) and all below it; each level takes at least
 * a bit, which bounds the recursion. */
static int grow(struct growing *trie, uint32_t at, uint32_t first, uint32_t count)
{
    const struct cidr_prefix *prefixes = trie->prefixes + first;
    struct node node = branch(prefixes, count);
    uint32_t same;
    node.first_leaf = trie->leaf_count;
    node.first_inner = trie->node_count;
    for (uint32_t i = 0; i < count; i += same) {
        uint64_t bit = 1ULL << bits_at(prefixes[i].bits, node.offset, node.stride);
        same = count_in_slot(&node, prefixes + i, count - i);
        if (same == 1)
            trie->leaves[trie->leaf_count++] = first + i;
        *(same == 1 ? &node.leaves : &node.inner) |= bit;
    }
    trie->nodes[at] = node;
    uint32_t next = node.first_inner;
    int result = add_nodes(trie, count_bits(node.inner));
    for (uint32_t i = 0; i < count && result == 0; i += same) {
        same = count_in_slot(&node, prefixes + i, count - i);
        if (same > 1)
            result = grow(trie, next++, first + i, same);
    }
    return result;
}

/* Plans the trie of a family; nothing is grown for the empty one and the full one. */
static int grow_family(struct growing *growing, struct trie *trie,
                       const struct cidr_prefix *prefixes, uint32_t count)
{
    growing->prefixes = prefixes;
    trie->all = count && prefixes[0].len == 0;
    if (!count || trie->all)
        return 0;
    growing->leaves = calloc(count, sizeof(*growing->leaves));
    int result = growing->leaves ? add_nodes(growing, 1) : -ENOMEM;
    if (result == 0)
        result = grow(growing, 0, 0, count);
    trie->node_count = growing->node_count;
    trie->leaf_count = growing->leaf_count;
    return result;
}

/* Places the arrays; returns the end of the last. */
static uint64_t place(struct trie *trie, uint64_t at, uint32_t words)
{
    trie->words = words;
    trie->nodes = at;
    trie->keys = trie->nodes + (uint64_t)trie->node_count * sizeof(struct node);
    trie->lengths = trie->keys + (uint64_t)trie->leaf_count * words * sizeof(uint64_t);
    return words == 1 ? trie->lengths : (trie->lengths + trie->leaf_count + 7) & ~7ULL;
}

static void fill(struct cidr_set *set, const struct trie *trie, const struct growing *growing)
{
    char *base = (char *)set;
    uint64_t *keys = (uint64_t *)(base + trie->keys);
    uint8_t *lengths = (uint8_t *)(base + trie->lengths);
    if (!growing->leaves)
        return; /* the trie is empty */
    memcpy(base + trie->nodes, growing->nodes, trie->node_count * sizeof(struct node));
    for (uint32_t i = 0; i < trie->leaf_count; i++) {
        const struct cidr_prefix *prefix = &growing->prefixes[growing->leaves[i]];
        memcpy(keys + (size_t)i * trie->words, prefix->bits, trie->words * sizeof(uint64_t));
        if (trie->words == 1)
            keys[i] |= prefix->len;
        else
            lengths[i] = prefix->len;
    }
}

/* Zeroed. Every reload frees a set: a large one must go back to the system at once. */
static struct cidr_set *allocate(size_t bytes)
{
    if (bytes < LARGE_BYTES)
        return calloc(1, bytes);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void cidr_set_destroy(struct cidr_set *set)
{
    if (set && set->bytes >= LARGE_BYTES)
        munmap(set, set->bytes);
    else
        free(set);
}

struct cidr_set *cidr_set_create(struct cidr_builder *builder)
{
    struct growing growing[2] = {0};
    struct cidr_set head = {.magic = SET_MAGIC, .local = builder->local};
    struct cidr_set *set = NULL;
    normalize(builder);
    uint32_t v4 = 0;
    while (v4 < builder->count && builder->prefixes[v4].family == CIDR_V4)
        v4++;
    if (grow_family(&growing[CIDR_V4], &head.tries[CIDR_V4], builder->prefixes, v4) == 0 &&
        grow_family(&growing[CIDR_V6], &head.tries[CIDR_V6],
                    builder->count > v4 ? builder->prefixes + v4 : NULL,
                    (uint32_t)builder->count - v4) == 0) {
        uint64_t end = place(&head.tries[CIDR_V4], (sizeof(head) + 63) & ~(size_t)63, 1);
        head.bytes = place(&head.tries[CIDR_V6], end, 2);
        set = allocate(head.bytes);
    }
    if (set) {
        *set = head;
        fill(set, &set->tries[CIDR_V4], &growing[CIDR_V4]);
        fill(set, &set->tries[CIDR_V6], &growing[CIDR_V6]);
    }
    for (unsigned i = 0; i < 2; i++) {
        free(growing[i].nodes);
        free(growing[i].leaves);
    }
    return set;
}

/* --- Look-up ---------------------------------------------------------------------------------- */

static bool leaf_matches(const struct cidr_set *set, const struct trie *trie, uint32_t leaf,
                         const uint64_t bits[2])
{
    const char *base = (const char *)set;
    const uint64_t *key = (const uint64_t *)(base + trie->keys) + (size_t)leaf * trie->words;
    if (trie->words == 1)
        return !((*key ^ bits[0]) & mask(*key & UINT8_MAX));
    unsigned len = ((const uint8_t *)(base + trie->lengths))[leaf];
    if ((key[0] ^ bits[0]) & mask(len))
        return false;
    return len <= 64 || !((key[1] ^ bits[1]) & mask(len - 64));
}

static bool trie_contains(const struct cidr_set *set, const struct trie *trie,
                          const uint64_t bits[2])
{
    const struct node *nodes = (const struct node *)((const char *)set + trie->nodes);
    if (!trie->node_count)
        return trie->all;
    for (const struct node *node = nodes;;) {
        uint64_t bit = 1ULL << bits_at(bits, node->offset, node->stride);
        if (node->inner & bit)
            node = nodes + node->first_inner + count_bits(node->inner & (bit - 1));
        else if (node->leaves & bit)
            return leaf_matches(set, trie, node->first_leaf + count_bits(node->leaves & (bit - 1)),
                                bits);
        else
            return false;
    }
}

static bool contains_bits(const struct cidr_set *set, enum cidr_family family, uint64_t bits[2])
{
    if (family == CIDR_V6 && is_mapped(bits)) {
        unmap(bits);
        family = CIDR_V4;
    }
    return trie_contains(set, &set->tries[family], bits);
}

bool cidr_set_contains(const struct cidr_set *set, const struct address *address)
{
    uint64_t bits[2];
    switch (address->len ? address->any.sa_family : AF_UNSPEC) {
    case AF_INET:
        load_v4(&address->v4.sin_addr, bits);
        return contains_bits(set, CIDR_V4, bits);
    case AF_INET6:
        load_v6(&address->v6.sin6_addr, bits);
        return contains_bits(set, CIDR_V6, bits);
    case AF_UNIX:
        return set->local;
    default:
        return false;
    }
}

int cidr_set_contains_text(const struct cidr_set *set, struct slice text)
{
    uint64_t bits[2];
    if (slice_equal(text, local_text))
        return set->local;
    int family = parse_ip(text, bits);
    return family < 0 ? family : contains_bits(set, (enum cidr_family)family, bits);
}

bool cidr_sets_contain(const struct cidr_sets *sets, const struct address *address)
{
    for (unsigned i = 0; i < sets->count; i++)
        if (cidr_set_contains(sets->sets[i], address))
            return true;
    return false;
}

/* --- The block -------------------------------------------------------------------------------- */

size_t cidr_set_count(const struct cidr_set *set)
{
    size_t count = set->local;
    for (unsigned i = 0; i < 2; i++)
        count += set->tries[i].all ? 1 : set->tries[i].leaf_count;
    return count;
}

size_t cidr_set_bytes(const struct cidr_set *set)
{
    return set->bytes;
}

bool cidr_is_block(struct slice bytes)
{
    struct cidr_set head;
    if (bytes.len < sizeof(head))
        return false;
    memcpy(&head, bytes.ptr, sizeof(head));
    return head.magic == SET_MAGIC && head.bytes == bytes.len;
}

struct cidr_set *cidr_set_copy(struct slice block)
{
    if (!cidr_is_block(block))
        return NULL;
    struct cidr_set *set = allocate(block.len);
    if (set)
        memcpy(set, block.ptr, block.len);
    return set;
}
