#include "base/counters_internal.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096 };

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
struct segment *counters_segment = &private_segment;
static int memory = -1; /* of the segment, if it is shared */
struct counters_part *counters_own = &private_part;

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

static struct counters_part *part_at(uint32_t index)
{
    if (counters_segment == &private_segment)
        return &private_part;
    return (struct counters_part *)counters_part_of(counters_segment, index);
}

/* --- Life ------------------------------------------------------------------------------------- */

void counters_label(const struct counter_info *info, char label[COUNTERS_LABEL_MAX])
{
    snprintf(label, COUNTERS_LABEL_MAX, "%s %s", info->name, info->value);
}

/* Two parts more than workers: the supervisor's, and what was inherited. */
static void describe(struct segment *segment, unsigned workers)
{
    segment->layout = COUNTERS_LAYOUT;
    segment->part_count = workers + 2;
    segment->counter_count = COUNTER_COUNT;
    segment->upstream_counter_count = UPSTREAM_COUNTER_COUNT;
    segment->pid = getpid();
    segment->parts_at = whole_pages(sizeof(*segment));
    segment->part_bytes = whole_pages(sizeof(struct counters_part));
    segment->upstreams_at = offsetof(struct counters_part, upstreams);
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        counters_label(&counter_infos[i], segment->names[i]);
    for (unsigned i = 0; i < UPSTREAM_COUNTER_COUNT; i++)
        counters_label(&upstream_counter_infos[i], segment->names[COUNTER_COUNT + i]);
    memcpy(segment->magic, COUNTERS_MAGIC, sizeof(segment->magic));
}

static int map(int fd, size_t bytes)
{
    if (ftruncate(fd, (off_t)bytes) != 0)
        return -errno;
    struct segment *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    if (getrandom(mapped->key, sizeof(mapped->key), 0) != sizeof(mapped->key)) {
        munmap(mapped, bytes);
        return -EIO;
    }
    counters_segment = mapped;
    return 0;
}

int counters_open(unsigned workers)
{
    size_t bytes = whole_pages(sizeof(struct segment)) +
                   (workers + 2) * whole_pages(sizeof(struct counters_part));
    int fd = memfd_create("monolake-counters", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = map(fd, bytes);
    if (result < 0) {
        close(fd);
        return result;
    }
    memory = fd;
    describe(counters_segment, workers);
    counters_own = part_at(workers);
    return 0;
}

void counters_be_worker(unsigned worker)
{
    if (worker < counters_segment->part_count)
        counters_own = part_at(worker);
}

void counters_leave(void)
{
    counters_segment = &private_segment;
    counters_forget_before();
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
    uint64_t hash = siphash(counters_segment->key, name, strlen(name)) | 1;
    write_name(&counters_segment->upstreams[COUNTERS_UPSTREAM_OTHERS], "(others)");
    for (unsigned i = 0; i < COUNTERS_UPSTREAMS_MAX - 1; i++) {
        unsigned at = 1 + (unsigned)(hash / 2 + i) % (COUNTERS_UPSTREAMS_MAX - 1);
        struct upstream_entry *entry = &counters_segment->upstreams[at];
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
    const struct upstream_entry *entry = &counters_segment->upstreams[upstream];
    return atomic_load(&entry->named) ? entry->name : NULL;
}

/* --- Sums ------------------------------------------------------------------------------------- */

int64_t counters_sum(enum counter counter)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < counters_segment->part_count; i++)
        sum += atomic_load_explicit(&part_at(i)->values[counter], memory_order_relaxed);
    return sum + counters_sum_before(counter);
}

int64_t counters_sum_upstream(unsigned upstream, enum upstream_counter counter)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < counters_segment->part_count; i++)
        sum +=
            atomic_load_explicit(&part_at(i)->upstreams[upstream][counter], memory_order_relaxed);
    return sum + counters_sum_upstream_before(upstream, counter);
}

int counters_memory(void)
{
    return memory;
}

struct counters_part *counters_inherited(void)
{
    return part_at(counters_segment->part_count - 1);
}
