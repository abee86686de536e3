#include "base/counters.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/siphash.h"

enum {
    PAGE_BYTES = 4096,
};

struct upstream_entry {
    _Atomic uint64_t hash; /* of the name; 0: free */
    _Atomic bool named;
    char name[COUNTERS_NAME_MAX];
};

/* The memory that is shared; the parts follow at the next page. */
struct segment {
    uint8_t key[SIPHASH_KEY_BYTES];
    uint32_t part_count;
    struct upstream_entry upstreams[COUNTERS_UPSTREAMS_MAX];
};

#define COUNTER(id, name, label, value, help) [COUNTER_##id] = {name, label, value, help, false},
#define GAUGE(id, name, label, value, help)   [COUNTER_##id] = {name, label, value, help, true},
const struct counter_info counter_infos[COUNTER_COUNT] = {
#include "base/counter_list.h"
};

#define UPSTREAM_COUNTER(id, name, help) [UPSTREAM_##id] = {name, "upstream", "", help, false},
const struct counter_info upstream_counter_infos[UPSTREAM_COUNTER_COUNT] = {
#include "base/counter_list.h"
};

static struct counters_part private_part; /* of a process that shares with nobody */
static struct segment private_segment = {.part_count = 1};
static struct segment *segment = &private_segment;
struct counters_part *counters_own = &private_part;

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

static struct counters_part *part_at(uint32_t index)
{
    if (segment == &private_segment)
        return &private_part;
    return (struct counters_part *)((char *)segment + whole_pages(sizeof(*segment)) +
                                    index * whole_pages(sizeof(struct counters_part)));
}

/* --- Life ------------------------------------------------------------------------------------- */

int counters_open(unsigned workers)
{
    uint32_t parts = workers + 1;
    size_t bytes =
        whole_pages(sizeof(struct segment)) + parts * whole_pages(sizeof(struct counters_part));
    struct segment *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    mapped->part_count = parts;
    if (getrandom(mapped->key, sizeof(mapped->key), 0) != sizeof(mapped->key)) {
        munmap(mapped, bytes);
        return -EIO;
    }
    segment = mapped;
    counters_own = part_at(workers);
    return 0;
}

void counters_be_worker(unsigned worker)
{
    if (worker < segment->part_count)
        counters_own = part_at(worker);
}

void counters_leave(void)
{
    segment = &private_segment;
    counters_own = &private_part;
}

void counters_worker_ended(unsigned worker)
{
    struct counters_part *part = part_at(worker);
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        if (counter_infos[i].gauge)
            atomic_store_explicit(&part->values[i], 0, memory_order_relaxed);
}

/* --- Upstreams -------------------------------------------------------------------------------- */

/* Several may write it at once, and one may be killed at it: all write the same. */
static void write_name(struct upstream_entry *entry, const char *name)
{
    if (atomic_load(&entry->named))
        return;
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    atomic_store(&entry->named, true);
}

unsigned counters_upstream(const char *name)
{
    uint64_t hash = siphash(segment->key, name, strlen(name)) | 1;
    write_name(&segment->upstreams[COUNTERS_UPSTREAM_OTHERS], "(others)");
    for (unsigned i = 0; i < COUNTERS_UPSTREAMS_MAX - 1; i++) {
        unsigned at = 1 + (unsigned)(hash / 2 + i) % (COUNTERS_UPSTREAMS_MAX - 1);
        struct upstream_entry *entry = &segment->upstreams[at];
        uint64_t found = 0;
        if (atomic_compare_exchange_strong(&entry->hash, &found, hash) || found == hash) {
            write_name(entry, name);
            return at;
        }
    }
    return COUNTERS_UPSTREAM_OTHERS;
}

const char *counters_upstream_name(unsigned upstream)
{
    const struct upstream_entry *entry = &segment->upstreams[upstream];
    return atomic_load(&entry->named) ? entry->name : NULL;
}

/* --- Sums ------------------------------------------------------------------------------------- */

int64_t counters_sum(enum counter counter)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < segment->part_count; i++)
        sum += atomic_load_explicit(&part_at(i)->values[counter], memory_order_relaxed);
    return sum;
}

int64_t counters_sum_upstream(unsigned upstream, enum upstream_counter counter)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < segment->part_count; i++)
        sum +=
            atomic_load_explicit(&part_at(i)->upstreams[upstream][counter], memory_order_relaxed);
    return sum;
}
