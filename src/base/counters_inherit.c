/* What programs before this one have counted: see counters.h. */
#include "base/counters_internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BEFORE_MAX = 8, /* programs that drain at a time */
    NONE = -1,
    COUNT_MAX = 4096, /* of counters and parts; more is nonsense */
};

/* A program that may still be counting. */
struct before {
    const struct segment *segment; /* mapped, and only read */
    size_t bytes;
    int fd;
    int32_t counters[COUNTER_COUNT]; /* where it has ours; NONE: it has not */
    int32_t of_upstreams[UPSTREAM_COUNTER_COUNT];
    int32_t upstreams[COUNTERS_UPSTREAMS_MAX]; /* where it has the one at our place, or NONE */
};

static struct before befores[BEFORE_MAX];
static unsigned before_count;

static int64_t value_at(const char *at)
{
    return atomic_load_explicit((const _Atomic int64_t *)at, memory_order_relaxed);
}

static int64_t sum(const struct before *before, enum counter counter)
{
    int64_t total = 0;
    int32_t index = before->counters[counter];
    for (uint32_t i = 0; index != NONE && i < before->segment->part_count; i++)
        total += value_at(counters_part_of(before->segment, i) + index * sizeof(int64_t));
    return total;
}

static int64_t sum_upstream(const struct before *before, unsigned upstream,
                            enum upstream_counter counter)
{
    const struct segment *segment = before->segment;
    int32_t index = before->of_upstreams[counter];
    int32_t place = before->upstreams[upstream];
    int64_t total = 0;
    if (index == NONE || place == NONE)
        return 0;
    size_t at = segment->upstreams_at +
                ((size_t)place * segment->upstream_counter_count + (size_t)index) * sizeof(int64_t);
    for (uint32_t i = 0; i < segment->part_count; i++)
        total += value_at(counters_part_of(segment, i) + at);
    return total;
}

static bool has_ended(const struct before *before)
{
    return kill(before->segment->pid, 0) != 0 && errno == ESRCH;
}

int64_t counters_sum_before(enum counter counter)
{
    int64_t total = 0;
    for (unsigned i = 0; i < before_count; i++)
        if (!counter_infos[counter].gauge || !has_ended(&befores[i]))
            total += sum(&befores[i], counter);
    return total;
}

int64_t counters_sum_upstream_before(unsigned upstream, enum upstream_counter counter)
{
    int64_t total = 0;
    for (unsigned i = 0; i < before_count; i++)
        total += sum_upstream(&befores[i], upstream, counter);
    return total;
}

void counters_forget_before(void)
{
    before_count = 0;
}

/* --- Taking over ------------------------------------------------------------------------------ */

static bool makes_sense(const struct segment *segment, size_t bytes)
{
    uint64_t names = (uint64_t)segment->counter_count + segment->upstream_counter_count;
    uint64_t upstreams = (uint64_t)COUNTERS_UPSTREAMS_MAX * segment->upstream_counter_count;
    return segment->layout == COUNTERS_LAYOUT && names <= COUNT_MAX &&
           segment->part_count <= COUNT_MAX && segment->parts_at <= bytes &&
           segment->part_bytes <= bytes &&
           offsetof(struct segment, names) + names * COUNTERS_LABEL_MAX <= segment->parts_at &&
           segment->counter_count * sizeof(int64_t) <= segment->upstreams_at &&
           segment->upstreams_at + upstreams * sizeof(int64_t) <= segment->part_bytes &&
           segment->parts_at + segment->part_count * segment->part_bytes <= bytes;
}

static int32_t find(const struct segment *segment, uint32_t first, uint32_t count,
                    const struct counter_info *info)
{
    const char *names = segment->names[0];
    char label[COUNTERS_LABEL_MAX];
    counters_label(info, label);
    for (uint32_t i = 0; i < count; i++)
        if (strncmp(names + (size_t)(first + i) * COUNTERS_LABEL_MAX, label, COUNTERS_LABEL_MAX) ==
            0)
            return (int32_t)i;
    return NONE;
}

static void learn(struct before *before)
{
    const struct segment *segment = before->segment;
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        before->counters[i] = find(segment, 0, segment->counter_count, &counter_infos[i]);
    for (unsigned i = 0; i < UPSTREAM_COUNTER_COUNT; i++)
        before->of_upstreams[i] = find(segment, segment->counter_count,
                                       segment->upstream_counter_count, &upstream_counter_infos[i]);
    for (unsigned i = 0; i < COUNTERS_UPSTREAMS_MAX; i++)
        before->upstreams[i] = NONE;
    before->upstreams[COUNTERS_UPSTREAM_OTHERS] = COUNTERS_UPSTREAM_OTHERS;
    for (unsigned i = COUNTERS_UPSTREAM_OTHERS + 1; i < COUNTERS_UPSTREAMS_MAX; i++) {
        const struct upstream_entry *entry = &segment->upstreams[i];
        if (atomic_load(&entry->named))
            before->upstreams[counters_upstream(entry->name)] = (int32_t)i;
    }
}

/* Adds up what it has counted: it counts no more. */
static void keep_sums(const struct before *before)
{
    struct counters_part *part = counters_inherited();
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        if (!counter_infos[i].gauge)
            counters_add_to(&part->values[i], sum(before, i));
    for (unsigned i = 0; i < COUNTERS_UPSTREAMS_MAX; i++)
        for (unsigned j = 0; j < UPSTREAM_COUNTER_COUNT; j++) {
            int64_t count = sum_upstream(before, i, j);
            if (count)
                counters_add_to(&part->upstreams[i][j], count);
        }
}

int counters_inherit(int fd)
{
    static struct before before;
    struct stat status;
    if (fstat(fd, &status) != 0 || (size_t)status.st_size < sizeof(before.segment->magic))
        return -EPROTO;
    before.bytes = (size_t)status.st_size;
    const struct segment *segment = mmap(NULL, before.bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (segment == MAP_FAILED)
        return -errno;
    bool ours = memcmp(segment->magic, COUNTERS_MAGIC, sizeof(segment->magic)) == 0;
    if (!ours || before.bytes < offsetof(struct segment, names) ||
        !makes_sense(segment, before.bytes)) {
        munmap((void *)segment, before.bytes);
        return ours ? -EPROTONOSUPPORT : -EPROTO;
    }
    before.segment = segment;
    before.fd = fd;
    learn(&before);
    if (!has_ended(&before) && before_count < BEFORE_MAX) {
        befores[before_count++] = before;
        return 0;
    }
    keep_sums(&before);
    munmap((void *)segment, before.bytes);
    close(fd);
    return 0;
}

unsigned counters_leave_behind(int *fds, unsigned max)
{
    unsigned count = 0;
    if (counters_memory() >= 0 && count < max)
        fds[count++] = counters_memory();
    for (unsigned i = 0; i < before_count && count < max; i++)
        fds[count++] = befores[i].fd;
    return count;
}
