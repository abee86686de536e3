#include "net/limits.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "base/siphash.h"

enum {
    BUCKET_PLACES = 8, /* a cache line; a source has its place in one of two buckets */
    COUNT_BITS = 24,   /* of a place: connections; above them the source's hash */
    SOURCES_MAX = 1 << 22,
    SOURCES_MIN = 1 << 10,
    PAGE_BYTES = 4096,
    NS_PER_S = 1000000000,
};

#define COUNT_MASK ((1ULL << COUNT_BITS) - 1)

struct bucket {
    _Alignas(64) _Atomic uint64_t places[BUCKET_PLACES]; /* hash and count; 0: free */
};

struct shared_listener {
    _Atomic uint64_t name;   /* hash; 0: free */
    _Atomic int64_t rate_ns; /* when all that was accepted would have been due at the rate */
};

struct limits_shared {
    uint8_t key[SIPHASH_KEY_BYTES];
    size_t bytes;
    size_t worker_bytes; /* distance of the workers' parts, each a worker_counts */
    unsigned workers;
    uint32_t bucket_count; /* a power of two */
    struct shared_listener listeners[LIMITS_LISTENERS_MAX];
};

struct worker_counts {
    _Alignas(64) _Atomic uint32_t connections[LIMITS_LISTENERS_MAX];
    struct bucket buckets[];
};

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

static struct worker_counts *counts_of(const struct limits_shared *shared, unsigned worker)
{
    return (struct worker_counts *)((char *)shared + whole_pages(sizeof(*shared)) +
                                    worker * shared->worker_bytes);
}

/* --- Life ------------------------------------------------------------------------------------- */

/* At most half of the places are in use, so that both buckets of a source are hardly ever full. */
static uint32_t buckets_for(uint32_t connections)
{
    uint32_t wanted = connections < SOURCES_MIN ? SOURCES_MIN : connections;
    uint32_t count = 1;
    if (wanted > SOURCES_MAX)
        wanted = SOURCES_MAX;
    while (count * BUCKET_PLACES < wanted * 2)
        count *= 2;
    return count;
}

int limits_open(struct limits *limits, unsigned workers, uint32_t connections_max)
{
    uint32_t buckets = buckets_for(connections_max);
    size_t of_worker = whole_pages(sizeof(struct worker_counts) + buckets * sizeof(struct bucket));
    size_t bytes = whole_pages(sizeof(struct limits_shared)) + workers * of_worker;
    *limits = (struct limits){0};
    struct limits_shared *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED)
        return -errno;
    shared->bytes = bytes;
    shared->worker_bytes = of_worker;
    shared->workers = workers;
    shared->bucket_count = buckets;
    if (getrandom(shared->key, sizeof(shared->key), 0) != sizeof(shared->key)) {
        munmap(shared, bytes);
        return -EIO;
    }
    limits->shared = shared;
    return 0;
}

void limits_close(struct limits *limits)
{
    if (limits->shared)
        munmap(limits->shared, limits->shared->bytes);
    limits->shared = NULL;
}

void limits_clear(struct limits *limits, unsigned worker)
{
    const struct limits_shared *shared = limits->shared;
    if (!shared || worker >= shared->workers)
        return;
    struct worker_counts *counts = counts_of(shared, worker);
    if (madvise(counts, shared->worker_bytes, MADV_REMOVE) != 0) /* gives the memory back, too */
        memset(counts, 0, shared->worker_bytes);
}

/* --- Listeners -------------------------------------------------------------------------------- */

int limits_listener(const struct limits *limits, const char *name)
{
    struct limits_shared *shared = limits->shared;
    if (!shared)
        return LIMITS_NONE;
    uint64_t hash = siphash(shared->key, name, strlen(name)) | 1;
    for (unsigned i = 0; i < LIMITS_LISTENERS_MAX; i++) {
        unsigned at = (unsigned)(hash / 2 + i) % LIMITS_LISTENERS_MAX;
        uint64_t found = 0;
        if (atomic_compare_exchange_strong(&shared->listeners[at].name, &found, hash) ||
            found == hash)
            return (int)at;
    }
    return LIMITS_NONE;
}

void limits_add_connections(const struct limits *limits, int listener, int count)
{
    if (limits->shared && listener != LIMITS_NONE)
        atomic_fetch_add(&counts_of(limits->shared, limits->worker)->connections[listener],
                         (uint32_t)count);
}

uint32_t limits_connections(const struct limits *limits, int listener)
{
    const struct limits_shared *shared = limits->shared;
    uint32_t sum = 0;
    for (unsigned i = 0; shared && listener != LIMITS_NONE && i < shared->workers; i++)
        sum += atomic_load(&counts_of(shared, i)->connections[listener]);
    return sum;
}

/* --- Sources ---------------------------------------------------------------------------------- */

static void cut(uint8_t *bytes, unsigned len, unsigned bits)
{
    for (unsigned i = 0; i < len; i++, bits -= bits < 8 ? bits : 8)
        if (bits < 8)
            bytes[i] &= (uint8_t)(0xff00 >> bits);
}

uint64_t limits_source(const struct limits *limits, int listener, const struct address *address,
                       unsigned v4_bits, unsigned v6_bits)
{
    struct {
        int32_t listener;
        uint32_t is_v6;
        uint8_t bytes[16];
    } key = {.listener = listener};
    if (!limits->shared || listener == LIMITS_NONE || !address->len)
        return 0;
    const struct in6_addr *v6 = &address->v6.sin6_addr;
    if (address->any.sa_family == AF_INET) {
        memcpy(key.bytes, &address->v4.sin_addr, 4);
    } else if (address->any.sa_family == AF_INET6) {
        key.is_v6 = !IN6_IS_ADDR_V4MAPPED(v6);
        memcpy(key.bytes, key.is_v6 ? v6->s6_addr : v6->s6_addr + 12, key.is_v6 ? 16 : 4);
    } else {
        return 0;
    }
    cut(key.bytes, key.is_v6 ? 16 : 4, key.is_v6 ? v6_bits : v4_bits);
    uint64_t hash = siphash(limits->shared->key, &key, sizeof(key));
    return hash >> COUNT_BITS ? hash : UINT64_MAX; /* a place in use is never 0 */
}

/* The two buckets of a source; the hash in the places is of other bits than their choice. */
static struct bucket *bucket_of(const struct limits_shared *shared, unsigned worker,
                                uint64_t source, unsigned choice)
{
    uint32_t index = (uint32_t)(source ^ (choice ? (source >> COUNT_BITS) * 0x9e3779b1U : 0));
    return &counts_of(shared, worker)->buckets[index & (shared->bucket_count - 1)];
}

/* The place of a source, or NULL; with `make` a free one, if there is one, in the emptier bucket.
 */
static _Atomic uint64_t *place_of(const struct limits_shared *shared, unsigned worker,
                                  uint64_t source, bool make)
{
    _Atomic uint64_t *free_place = NULL;
    unsigned most_free = 0;
    for (unsigned choice = 0; choice < 2; choice++) {
        struct bucket *bucket = bucket_of(shared, worker, source, choice);
        _Atomic uint64_t *last_free = NULL;
        unsigned free_count = 0;
        for (unsigned i = 0; i < BUCKET_PLACES; i++) {
            uint64_t place = atomic_load(&bucket->places[i]);
            if (place && place >> COUNT_BITS == source >> COUNT_BITS)
                return &bucket->places[i];
            if (!place) {
                last_free = &bucket->places[i];
                free_count++;
            }
        }
        if (free_count > most_free) {
            most_free = free_count;
            free_place = last_free;
        }
    }
    return make ? free_place : NULL;
}

static uint64_t count_at(const _Atomic uint64_t *place)
{
    return place ? atomic_load(place) & COUNT_MASK : 0;
}

/* Of one place only this worker is the writer. */
static void change(_Atomic uint64_t *place, uint64_t source, int difference)
{
    uint64_t count = count_at(place) + (uint64_t)difference;
    atomic_store(place, count ? (source & ~COUNT_MASK) | (count & COUNT_MASK) : 0);
}

bool limits_take_source(const struct limits *limits, uint64_t source, uint32_t max)
{
    const struct limits_shared *shared = limits->shared;
    _Atomic uint64_t *own = place_of(shared, limits->worker, source, true);
    uint64_t sum = 0;
    if (!own)
        return false;
    change(own, source, 1);
    for (unsigned i = 0; i < shared->workers; i++)
        sum += count_at(i == limits->worker ? own : place_of(shared, i, source, false));
    if (sum <= max)
        return true;
    change(own, source, -1);
    return false;
}

void limits_give_source(const struct limits *limits, uint64_t source)
{
    _Atomic uint64_t *place =
        limits->shared ? place_of(limits->shared, limits->worker, source, false) : NULL;
    if (place)
        change(place, source, -1);
}

/* --- Rates ------------------------------------------------------------------------------------ */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int64_t interval_ns(uint32_t rate)
{
    return rate < NS_PER_S ? NS_PER_S / rate : 1;
}

/* When the rate was last kept up with: now if it is not used up, and never further ahead than by a
 * burst, whatever the rate was before. */
static int64_t due_ns(int64_t rate_ns, int64_t now, int64_t burst_ns)
{
    if (rate_ns < now)
        return now;
    return rate_ns > now + burst_ns ? now + burst_ns : rate_ns;
}

uint32_t limits_rate_left(const struct limits *limits, int listener, uint32_t rate, uint32_t burst)
{
    if (!limits->shared || listener == LIMITS_NONE)
        return UINT32_MAX;
    int64_t interval = interval_ns(rate);
    int64_t now = now_ns();
    int64_t due =
        due_ns(atomic_load(&limits->shared->listeners[listener].rate_ns), now, interval * burst);
    return (uint32_t)((now + interval * burst - due) / interval);
}

void limits_rate_take(const struct limits *limits, int listener, uint32_t rate, uint32_t burst)
{
    if (!limits->shared || listener == LIMITS_NONE)
        return;
    _Atomic int64_t *at = &limits->shared->listeners[listener].rate_ns;
    int64_t interval = interval_ns(rate);
    int64_t seen = atomic_load(at);
    while (!atomic_compare_exchange_weak(at, &seen,
                                         due_ns(seen, now_ns(), interval * burst) + interval))
        continue;
}
