#include "shared/dict.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/siphash.h"

enum {
    LAYOUT = 1, /* to be raised with every change of this header or of a shard */
    PAGE_BYTES = 4096,
    SHARD_BYTES_MIN = 64 << 10,
    SHARD_BYTES_USUAL = 256 << 10,
    SHARDS_MAX = 64,
};

static const char magic[8] = "mlshared";

struct header {
    char magic[8];
    uint32_t layout;
    uint32_t lock_bytes; /* of a pthread_mutex_t: part of the layout, though not ours */
    struct shared_spec spec;
    uint32_t shard_count; /* a power of two */
    uint64_t shard_bytes;
    uint8_t key[SIPHASH_KEY_BYTES];
};

struct shared_dict {
    struct header *header;
};

/* --- Life ------------------------------------------------------------------------------------- */

static uint32_t shards_for(uint64_t size)
{
    uint32_t count = 1;
    while (count < SHARDS_MAX && size / (count * 2) >= SHARD_BYTES_USUAL)
        count *= 2;
    return count;
}

static struct shard *shard_at(const struct header *header, uint32_t index)
{
    return (struct shard *)((char *)header + PAGE_BYTES + index * header->shard_bytes);
}

static size_t all_bytes(const struct header *header)
{
    return PAGE_BYTES + header->shard_count * header->shard_bytes;
}

static int init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error)
        return -error;
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (!error)
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (!error)
        error = pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return -error;
}

static int init_header(struct header *header, const struct shared_spec *spec)
{
    memcpy(header->magic, magic, sizeof(magic));
    header->layout = LAYOUT;
    header->lock_bytes = sizeof(pthread_mutex_t);
    header->spec = *spec;
    header->shard_count = shards_for(spec->size);
    header->shard_bytes = spec->size / header->shard_count / PAGE_BYTES * PAGE_BYTES;
    return getrandom(header->key, sizeof(header->key), 0) == sizeof(header->key) ? 0 : -EIO;
}

/* The file is as long as it needs be, and empty. */
static int fill(int fd, const struct header *header)
{
    size_t bytes = all_bytes(header);
    struct header *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    *mapped = *header;
    int result = 0;
    for (uint32_t i = 0; i < header->shard_count && result == 0; i++) {
        shard_init(shard_at(mapped, i), header->shard_bytes, header->spec.evicts);
        result = init_lock(&shard_at(mapped, i)->lock);
    }
    munmap(mapped, bytes);
    return result;
}

int shared_create(const struct shared_spec *spec)
{
    struct header header = {.layout = 0};
    assert(spec->size >= SHARED_SIZE_MIN && spec->size <= SHARED_SIZE_MAX);
    int result = init_header(&header, spec);
    int fd = memfd_create("monolake-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (result == 0 && ftruncate(fd, (off_t)all_bytes(&header)) != 0)
        result = -errno;
    if (result == 0)
        result = fill(fd, &header);
    /* Whoever maps it can rely on its length. */
    if (result == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        result = -errno;
    if (result == 0)
        return fd;
    close(fd);
    return result;
}

static int read_header(int fd, struct header *header)
{
    struct stat status;
    if (fstat(fd, &status) != 0 || pread(fd, header, sizeof(*header), 0) != sizeof(*header) ||
        memcmp(header->magic, magic, sizeof(magic)) != 0)
        return -EPROTO;
    if (header->layout != LAYOUT || header->lock_bytes != sizeof(pthread_mutex_t) ||
        header->shard_count > SHARDS_MAX || (off_t)all_bytes(header) != status.st_size)
        return -EPROTONOSUPPORT;
    return 0;
}

int shared_inspect(int fd, struct shared_spec *spec)
{
    struct header header;
    int result = read_header(fd, &header);
    if (result == 0)
        *spec = header.spec;
    return result;
}

struct shared_dict *shared_map(int fd)
{
    struct header header;
    int result = read_header(fd, &header);
    struct shared_dict *dict = result == 0 ? malloc(sizeof(*dict)) : NULL;
    if (!dict) {
        errno = result == 0 ? ENOMEM : -result;
        return NULL;
    }
    dict->header = mmap(NULL, all_bytes(&header), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (dict->header != MAP_FAILED)
        return dict;
    free(dict);
    return NULL;
}

void shared_unmap(struct shared_dict *dict)
{
    munmap(dict->header, all_bytes(dict->header));
    free(dict);
}

const struct shared_spec *shared_spec_of(const struct shared_dict *dict)
{
    return &dict->header->spec;
}

/* --- Locks ------------------------------------------------------------------------------------ */

static void repair(const struct header *header, struct shard *shard)
{
    log_warn("a process died while it wrote to the shared dictionary \"%s\": repaired",
             header->spec.name);
    shard_repair(shard);
    pthread_mutex_consistent(&shard->lock);
}

static int take(const struct header *header, struct shard *shard)
{
    int error = pthread_mutex_trylock(&shard->lock);
    if (error == EBUSY) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += SHARED_WAIT_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        error = pthread_mutex_clocklock(&shard->lock, CLOCK_MONOTONIC, &until);
    }
    if (error == EOWNERDEAD) {
        repair(header, shard);
        error = 0;
    }
    return error ? -EBUSY : 0;
}

static void give(struct shard *shard)
{
    pthread_mutex_unlock(&shard->lock);
}

/* The locked shard of a key. NULL: it was not to be had. */
static struct shard *lock_for(const struct shared_dict *dict, struct slice key, uint32_t *hash)
{
    const struct header *header = dict->header;
    uint64_t all = siphash(header->key, key.ptr, key.len);
    struct shard *shard = shard_at(header, (uint32_t)(all >> 32) & (header->shard_count - 1));
    *hash = (uint32_t)all;
    return take(header, shard) == 0 ? shard : NULL;
}

/* --- Entries ---------------------------------------------------------------------------------- */

/* Room for a string that is handed out; it only grows. */
static char *room_for(uint32_t bytes)
{
    static char *room;
    static uint32_t size;
    if (bytes <= size && room)
        return room;
    char *grown = realloc(room, bytes + 1);
    if (!grown)
        return NULL;
    room = grown;
    size = bytes + 1;
    return room;
}

static int read_entry(struct shard *shard, uint32_t at, struct shared_value *value)
{
    char *room = room_for(shard_string_bytes(shard, at));
    if (!room)
        return -ENOMEM;
    shard_read(shard, at, value, room);
    shard_touch(shard, at);
    return 1;
}

int shared_get(struct shared_dict *dict, struct slice key, struct shared_value *value)
{
    uint32_t hash;
    struct shard *shard = lock_for(dict, key, &hash);
    if (!shard)
        return -EBUSY;
    uint32_t at = shard_find(shard, key, hash, clock_now_ms());
    *(at ? &shard->hits : &shard->misses) += 1;
    int result = at ? read_entry(shard, at, value) : 0;
    give(shard);
    return result;
}

static int64_t expiry(int64_t now_ms, int64_t ttl_ms)
{
    return ttl_ms ? now_ms + ttl_ms : 0;
}

int shared_put(struct shared_dict *dict, enum shared_how how, struct slice key,
               const struct shared_value *value, int64_t ttl_ms)
{
    uint32_t hash;
    if (key.len > SHARED_KEY_MAX)
        return -EMSGSIZE;
    struct shard *shard = lock_for(dict, key, &hash);
    if (!shard)
        return -EBUSY;
    int64_t now_ms = clock_now_ms();
    int result = 0;
    if (how == SHARED_SET || (shard_find(shard, key, hash, now_ms) != 0) == (how == SHARED_REPLACE))
        result = shard_put(shard, key, hash, value, expiry(now_ms, ttl_ms), now_ms) ?: 1;
    give(shard);
    return result;
}

static int incr(struct shard *shard, uint32_t at, double by, double *sum)
{
    struct shared_value value;
    if (shard_string_bytes(shard, at))
        return -EINVAL;
    shard_read(shard, at, &value, NULL);
    if (value.type != SHARED_NUMBER)
        return -EINVAL;
    *sum = value.number + by;
    shard_set_number(shard, at, *sum);
    shard_touch(shard, at);
    return 1;
}

int shared_incr(struct shared_dict *dict, struct slice key, double by, const double *init,
                int64_t ttl_ms, double *sum)
{
    uint32_t hash;
    if (key.len > SHARED_KEY_MAX)
        return -EMSGSIZE;
    struct shard *shard = lock_for(dict, key, &hash);
    if (!shard)
        return -EBUSY;
    int64_t now_ms = clock_now_ms();
    uint32_t at = shard_find(shard, key, hash, now_ms);
    int result = 0;
    if (at) {
        result = incr(shard, at, by, sum);
    } else if (init) {
        *sum = *init + by;
        struct shared_value value = {.type = SHARED_NUMBER, .number = *sum};
        result = shard_put(shard, key, hash, &value, expiry(now_ms, ttl_ms), now_ms) ?: 1;
    }
    give(shard);
    return result;
}

int shared_delete(struct shared_dict *dict, struct slice key)
{
    uint32_t hash;
    struct shard *shard = lock_for(dict, key, &hash);
    if (!shard)
        return -EBUSY;
    uint32_t at = shard_find(shard, key, hash, clock_now_ms());
    if (at)
        shard_remove(shard, at);
    give(shard);
    return at != 0;
}

int shared_ttl(struct shared_dict *dict, struct slice key, int64_t *left_ms)
{
    uint32_t hash;
    struct shard *shard = lock_for(dict, key, &hash);
    if (!shard)
        return -EBUSY;
    int64_t now_ms = clock_now_ms();
    uint32_t at = shard_find(shard, key, hash, now_ms);
    int64_t until_ms = at ? shard_expires_ms(shard, at) : 0;
    *left_ms = until_ms ? until_ms - now_ms : -1;
    give(shard);
    return at != 0;
}

int shared_expire(struct shared_dict *dict, struct slice key, int64_t ttl_ms)
{
    uint32_t hash;
    struct shard *shard = lock_for(dict, key, &hash);
    if (!shard)
        return -EBUSY;
    int64_t now_ms = clock_now_ms();
    uint32_t at = shard_find(shard, key, hash, now_ms);
    if (at)
        shard_set_expires(shard, at, expiry(now_ms, ttl_ms));
    give(shard);
    return at != 0;
}

/* --- As a whole ------------------------------------------------------------------------------- */

int shared_flush(struct shared_dict *dict)
{
    int result = 0;
    for (uint32_t i = 0; i < dict->header->shard_count; i++) {
        struct shard *shard = shard_at(dict->header, i);
        int taken = take(dict->header, shard);
        if (taken < 0) {
            result = taken;
            continue;
        }
        shard_flush(shard);
        give(shard);
    }
    return result;
}

static void add(struct shared_stats *stats, const struct shard *shard)
{
    stats->entries += shard->entries;
    stats->bytes_used += (uint64_t)(shard->block_count - shard->free_blocks) * SHARED_BLOCK_BYTES;
    stats->bytes += (uint64_t)shard->block_count * SHARED_BLOCK_BYTES;
    stats->evicted += shard->evicted;
    stats->expired += shard->expired;
    stats->hits += shard->hits;
    stats->misses += shard->misses;
    stats->repaired += shard->repaired;
}

int shared_stats(struct shared_dict *dict, struct shared_stats *stats)
{
    *stats = (struct shared_stats){0};
    for (uint32_t i = 0; i < dict->header->shard_count; i++) {
        struct shard *shard = shard_at(dict->header, i);
        int taken = take(dict->header, shard);
        if (taken < 0)
            return taken;
        shard_sweep(shard, clock_now_ms());
        add(stats, shard);
        give(shard);
    }
    return 0;
}

void shared_with_lock(struct shared_dict *dict, struct slice key, void (*fn)(struct shard *shard))
{
    uint32_t hash;
    struct shard *shard = lock_for(dict, key, &hash);
    assert(shard);
    fn(shard);
    give(shard);
}
