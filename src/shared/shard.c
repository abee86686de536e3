#include "shared/shard.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

enum kind {
    FREE,
    BODY,  /* of an entry's further bytes */
    LOOSE, /* while it is repaired: a BODY of which nobody knows yet whose it is */
    LIVE,  /* the head of an entry */
};

enum {
    SWEPT_AT_ONCE = 8, /* blocks */
    LAP_MS = 1000,     /* a full shard is not swept as a whole more often */
};

struct block {
    uint32_t next; /* further bytes, or the next free one: 1 + index; 0: none */
    _Atomic uint8_t kind;
    uint8_t type;     /* of heads, this and all below */
    uint16_t key_len; /* bytes */
    union {
        struct {
            uint32_t hash;
            uint32_t string_len;
            uint32_t bucket_next;
            uint32_t newer;
            uint32_t older;
            uint64_t version;
            _Atomic int64_t expires_ms;
            _Atomic double number;
            char bytes[SHARED_BLOCK_BYTES - 56]; /* the key, then the string */
        };
        char body[SHARED_BLOCK_BYTES - 8];
    };
};

_Static_assert(sizeof(struct block) == SHARED_BLOCK_BYTES, "a block has its size");

enum {
    HEAD_BYTES = SHARED_BLOCK_BYTES - offsetof(struct block, bytes),
    BODY_BYTES = SHARED_BLOCK_BYTES - offsetof(struct block, body),
};

static struct block *block_at(const struct shard *shard, uint32_t at)
{
    char *blocks = (char *)(shard->buckets + shard->bucket_count);
    return (struct block *)(blocks + (size_t)(at - 1) * SHARED_BLOCK_BYTES);
}

static enum kind kind_of(const struct block *block)
{
    return atomic_load_explicit(&block->kind, memory_order_relaxed);
}

/* What was written before is there when the mark is, for a process that is killed runs the
 * instructions in their order: only the compiler must keep it. */
static void mark(struct block *block, enum kind kind)
{
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&block->kind, (uint8_t)kind, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
}

static size_t entry_bytes(const struct block *head)
{
    return (size_t)head->key_len + (head->type == SHARED_STRING ? head->string_len : 0);
}

static uint32_t blocks_for(size_t bytes)
{
    return bytes <= HEAD_BYTES ? 1
                               : 1 + (uint32_t)((bytes - HEAD_BYTES + BODY_BYTES - 1) / BODY_BYTES);
}

/* --- Bytes of entries ------------------------------------------------------------------------- */

/* The piece of an entry's bytes at an offset: in one block. */
struct cursor {
    const struct shard *shard;
    struct block *block;
    char *at;
    size_t left; /* in the block */
};

static struct cursor cursor_at_head(const struct shard *shard, struct block *head)
{
    return (struct cursor){shard, head, head->bytes, HEAD_BYTES};
}

static void next_block(struct cursor *cursor)
{
    if (cursor->left)
        return;
    cursor->block = block_at(cursor->shard, cursor->block->next);
    cursor->at = cursor->block->body;
    cursor->left = BODY_BYTES;
}

static size_t step(struct cursor *cursor, size_t wanted)
{
    size_t count = wanted < cursor->left ? wanted : cursor->left;
    cursor->at += count;
    cursor->left -= count;
    return count;
}

static void put_bytes(struct cursor *cursor, struct slice bytes)
{
    while (bytes.len) {
        next_block(cursor);
        char *to = cursor->at;
        size_t count = step(cursor, bytes.len);
        memcpy(to, bytes.ptr, count);
        bytes = slice_of(bytes.ptr + count, bytes.len - count);
    }
}

static void skip_bytes(struct cursor *cursor, size_t len)
{
    while (len) {
        next_block(cursor);
        len -= step(cursor, len);
    }
}

static void get_bytes(struct cursor *cursor, char *out, size_t len)
{
    while (len) {
        next_block(cursor);
        const char *from = cursor->at;
        size_t count = step(cursor, len);
        memcpy(out, from, count);
        out += count;
        len -= count;
    }
}

static bool has_key(const struct shard *shard, struct block *head, struct slice key)
{
    struct cursor cursor = cursor_at_head(shard, head);
    if (head->key_len != key.len)
        return false;
    while (key.len) {
        next_block(&cursor);
        const char *from = cursor.at;
        size_t count = step(&cursor, key.len);
        if (memcmp(from, key.ptr, count) != 0)
            return false;
        key = slice_of(key.ptr + count, key.len - count);
    }
    return true;
}

/* --- Free blocks ------------------------------------------------------------------------------ */

static void give_block(struct shard *shard, uint32_t at)
{
    struct block *block = block_at(shard, at);
    mark(block, FREE);
    block->next = shard->first_free;
    shard->first_free = at;
    shard->free_blocks++;
}

static uint32_t take_block(struct shard *shard)
{
    uint32_t at = shard->first_free;
    assert(shard->free_blocks);
    shard->free_blocks--;
    if (at)
        shard->first_free = block_at(shard, at)->next;
    else
        at = ++shard->fresh; /* memory that was never touched costs nothing */
    return at;
}

/* A head and what follows it. */
static uint32_t take_blocks(struct shard *shard, uint32_t count)
{
    uint32_t at = take_block(shard);
    struct block *last = block_at(shard, at);
    for (uint32_t i = 1; i < count; i++) {
        last->next = take_block(shard);
        last = block_at(shard, last->next);
        mark(last, BODY);
    }
    last->next = 0;
    return at;
}

/* --- Index and order -------------------------------------------------------------------------- */

static uint32_t *bucket_of(struct shard *shard, uint32_t hash)
{
    return &shard->buckets[hash & (shard->bucket_count - 1)];
}

static void link_used(struct shard *shard, uint32_t at)
{
    struct block *head = block_at(shard, at);
    head->newer = 0;
    head->older = shard->newest;
    if (shard->newest)
        block_at(shard, shard->newest)->newer = at;
    else
        shard->oldest = at;
    shard->newest = at;
}

static void unlink_used(struct shard *shard, uint32_t at)
{
    const struct block *head = block_at(shard, at);
    if (head->newer)
        block_at(shard, head->newer)->older = head->older;
    else
        shard->newest = head->older;
    if (head->older)
        block_at(shard, head->older)->newer = head->newer;
    else
        shard->oldest = head->newer;
}

static void enter(struct shard *shard, uint32_t at)
{
    struct block *head = block_at(shard, at);
    uint32_t *bucket = bucket_of(shard, head->hash);
    head->bucket_next = *bucket;
    *bucket = at;
    link_used(shard, at);
    shard->entries++;
}

static void leave(struct shard *shard, uint32_t at)
{
    struct block *head = block_at(shard, at);
    uint32_t *link = bucket_of(shard, head->hash);
    while (*link != at)
        link = &block_at(shard, *link)->bucket_next;
    *link = head->bucket_next;
    unlink_used(shard, at);
    shard->entries--;
}

static uint32_t look_up(struct shard *shard, struct slice key, uint32_t hash)
{
    uint32_t at = *bucket_of(shard, hash);
    while (at) {
        struct block *head = block_at(shard, at);
        if (head->hash == hash && has_key(shard, head, key))
            return at;
        at = head->bucket_next;
    }
    return 0;
}

void shard_touch(struct shard *shard, uint32_t at)
{
    if (shard->newest == at)
        return;
    unlink_used(shard, at);
    link_used(shard, at);
}

void shard_remove(struct shard *shard, uint32_t at)
{
    struct block *head = block_at(shard, at);
    mark(head, FREE);
    leave(shard, at);
    for (uint32_t next; at; at = next) {
        next = block_at(shard, at)->next;
        give_block(shard, at);
    }
}

/* --- Room ------------------------------------------------------------------------------------- */

static bool is_over(const struct block *head, int64_t now_ms)
{
    int64_t expires_ms = atomic_load_explicit(&head->expires_ms, memory_order_relaxed);
    return expires_ms && expires_ms <= now_ms;
}

static void sweep_next(struct shard *shard, uint32_t count, int64_t now_ms)
{
    for (; count && shard->fresh; count--) {
        shard->swept = shard->swept >= shard->fresh ? 1 : shard->swept + 1;
        struct block *block = block_at(shard, shard->swept);
        if (kind_of(block) != LIVE || !is_over(block, now_ms))
            continue;
        shard_remove(shard, shard->swept);
        shard->expired++;
    }
}

void shard_sweep(struct shard *shard, int64_t now_ms)
{
    shard->lap_ms = now_ms;
    sweep_next(shard, shard->fresh, now_ms);
}

/* What is over goes first, then what was not used for longest. */
static bool make_room(struct shard *shard, uint32_t blocks, int64_t now_ms)
{
    sweep_next(shard, shard->free_blocks < blocks ? SWEPT_AT_ONCE : 1, now_ms);
    while (shard->evicts && shard->free_blocks < blocks && shard->oldest) {
        shard_remove(shard, shard->oldest);
        shard->evicted++;
    }
    if (shard->free_blocks < blocks && now_ms - shard->lap_ms >= LAP_MS)
        shard_sweep(shard, now_ms);
    return shard->free_blocks >= blocks;
}

/* --- Entries ---------------------------------------------------------------------------------- */

uint32_t shard_find(struct shard *shard, struct slice key, uint32_t hash, int64_t now_ms)
{
    uint32_t at = look_up(shard, key, hash);
    if (!at || !is_over(block_at(shard, at), now_ms))
        return at;
    shard_remove(shard, at);
    shard->expired++;
    return 0;
}

uint32_t shard_string_bytes(const struct shard *shard, uint32_t at)
{
    const struct block *head = block_at(shard, at);
    return head->type == SHARED_STRING ? head->string_len : 0;
}

void shard_read(const struct shard *shard, uint32_t at, struct shared_value *value, char *bytes)
{
    struct block *head = block_at(shard, at);
    *value = (struct shared_value){
        .type = head->type,
        .number = atomic_load_explicit(&head->number, memory_order_relaxed),
    };
    if (head->type != SHARED_STRING)
        return;
    struct cursor cursor = cursor_at_head(shard, head);
    skip_bytes(&cursor, head->key_len);
    get_bytes(&cursor, bytes, head->string_len);
    value->bytes = slice_of(bytes, head->string_len);
}

int64_t shard_expires_ms(const struct shard *shard, uint32_t at)
{
    return atomic_load_explicit(&block_at(shard, at)->expires_ms, memory_order_relaxed);
}

void shard_set_expires(struct shard *shard, uint32_t at, int64_t expires_ms)
{
    atomic_store_explicit(&block_at(shard, at)->expires_ms, expires_ms, memory_order_relaxed);
}

void shard_set_number(struct shard *shard, uint32_t at, double number)
{
    atomic_store_explicit(&block_at(shard, at)->number, number, memory_order_relaxed);
}

int shard_put(struct shard *shard, struct slice key, uint32_t hash,
              const struct shared_value *value, int64_t expires_ms, int64_t now_ms)
{
    size_t bytes = key.len + (value->type == SHARED_STRING ? value->bytes.len : 0);
    if (bytes > shard_bytes_max(shard))
        return -EMSGSIZE;
    uint32_t blocks = blocks_for(bytes);
    if (!make_room(shard, blocks, now_ms))
        return -ENOSPC;
    uint32_t old = look_up(shard, key, hash); /* if it has not made room itself */
    uint32_t at = take_blocks(shard, blocks);
    struct block *head = block_at(shard, at);
    head->type = (uint8_t)value->type;
    head->key_len = (uint16_t)key.len;
    head->hash = hash;
    head->string_len = value->type == SHARED_STRING ? (uint32_t)value->bytes.len : 0;
    head->version = ++shard->version;
    shard_set_expires(shard, at, expires_ms);
    shard_set_number(shard, at, value->number);
    struct cursor cursor = cursor_at_head(shard, head);
    put_bytes(&cursor, key);
    if (value->type == SHARED_STRING)
        put_bytes(&cursor, value->bytes);
    mark(head, LIVE);
    if (old)
        shard_remove(shard, old);
    enter(shard, at);
    return 0;
}

void shard_flush(struct shard *shard)
{
    while (shard->oldest)
        shard_remove(shard, shard->oldest);
}

/* --- Repair ----------------------------------------------------------------------------------- */

/* Are the blocks of an entry there, and nobody else's? */
static bool is_whole(const struct shard *shard, const struct block *head)
{
    uint32_t left = blocks_for(entry_bytes(head));
    uint32_t at = head->next;
    if (left > shard->block_count)
        return false;
    while (--left) {
        if (!at || at > shard->fresh || kind_of(block_at(shard, at)) != LOOSE)
            return false;
        at = block_at(shard, at)->next;
    }
    return at == 0;
}

static void claim(const struct shard *shard, const struct block *head)
{
    for (uint32_t at = head->next; at; at = block_at(shard, at)->next)
        mark(block_at(shard, at), BODY);
}

/* The other one with that key, if the writer of the new one was killed before the old one died. */
static uint32_t twin_of(struct shard *shard, struct block *head)
{
    for (uint32_t at = *bucket_of(shard, head->hash); at;) {
        struct block *other = block_at(shard, at);
        struct cursor cursor = cursor_at_head(shard, other);
        struct cursor own = cursor_at_head(shard, head);
        bool same = other->hash == head->hash && other->key_len == head->key_len;
        for (size_t i = 0; same && i < head->key_len; i++) {
            next_block(&cursor);
            next_block(&own);
            same = *cursor.at == *own.at;
            step(&cursor, 1);
            step(&own, 1);
        }
        if (same)
            return at;
        at = other->bucket_next;
    }
    return 0;
}

/* Its body stays LOOSE, or becomes free with the rest. */
static void disown(struct shard *shard, uint32_t at)
{
    for (uint32_t next = block_at(shard, at)->next; next; next = block_at(shard, next)->next)
        mark(block_at(shard, next), LOOSE);
    mark(block_at(shard, at), FREE);
}

static void readmit(struct shard *shard, uint32_t at)
{
    struct block *head = block_at(shard, at);
    if (!is_whole(shard, head)) {
        mark(head, FREE);
        return;
    }
    claim(shard, head);
    uint32_t twin = twin_of(shard, head);
    if (twin && block_at(shard, twin)->version > head->version) {
        disown(shard, at);
        return;
    }
    if (twin) {
        leave(shard, twin);
        disown(shard, twin);
    }
    if (head->version > shard->version)
        shard->version = head->version;
    enter(shard, at);
}

static void forget_lists(struct shard *shard)
{
    memset(shard->buckets, 0, shard->bucket_count * sizeof(shard->buckets[0]));
    shard->first_free = shard->newest = shard->oldest = shard->entries = 0;
    shard->swept = 0;
    if (shard->fresh > shard->block_count)
        shard->fresh = shard->block_count;
}

void shard_repair(struct shard *shard)
{
    shard->repaired++;
    forget_lists(shard);
    for (uint32_t at = 1; at <= shard->fresh; at++)
        if (kind_of(block_at(shard, at)) == BODY)
            mark(block_at(shard, at), LOOSE);
    for (uint32_t at = 1; at <= shard->fresh; at++)
        if (kind_of(block_at(shard, at)) == LIVE)
            readmit(shard, at);
    shard->free_blocks = shard->block_count - shard->fresh;
    for (uint32_t at = shard->fresh; at; at--) {
        enum kind kind = kind_of(block_at(shard, at));
        if (kind != LIVE && kind != BODY)
            give_block(shard, at);
    }
}

/* --- Life ------------------------------------------------------------------------------------- */

void shard_init(struct shard *shard, size_t bytes, bool evicts)
{
    size_t room = bytes - sizeof(*shard) - SHARED_BLOCK_BYTES; /* for the blocks' alignment */
    uint32_t buckets = 1;
    while ((size_t)buckets * 2 * (sizeof(uint32_t) + SHARED_BLOCK_BYTES) <= room)
        buckets *= 2;
    shard->bucket_count = buckets;
    shard->block_count = (uint32_t)((room - buckets * sizeof(uint32_t)) / SHARED_BLOCK_BYTES);
    shard->free_blocks = shard->block_count;
    shard->evicts = evicts;
}

uint32_t shard_bytes_max(const struct shard *shard)
{
    return shard->block_count / 2 * BODY_BYTES;
}
