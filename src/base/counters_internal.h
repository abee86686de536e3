/* The memory of counters, for counters.c and counters_inherit.c. */
#ifndef BASE_COUNTERS_INTERNAL_H
#define BASE_COUNTERS_INTERNAL_H

#include "base/counters.h"
#include "base/siphash.h"

#include <stddef.h>
#include <sys/types.h>

#define COUNTERS_MAGIC "mlcounts"

enum {
    COUNTERS_LAYOUT = 1, /* of what is below but the names: to be raised when it changes */
    COUNTERS_LABEL_MAX = 96,
};

struct upstream_entry {
    _Atomic uint64_t hash; /* of the name; 0: free */
    _Atomic bool named;
    char name[COUNTERS_NAME_MAX];
};

/* The memory that is shared; a program of another version finds its way by what is in here. */
struct segment {
    char magic[8];
    uint32_t layout;
    uint32_t part_count;
    uint32_t counter_count;
    uint32_t upstream_counter_count;
    int32_t pid;           /* of the program */
    uint64_t parts_at;     /* where the first part begins, bytes */
    uint64_t part_bytes;   /* from one part to the next */
    uint64_t upstreams_at; /* in a part */
    uint8_t key[SIPHASH_KEY_BYTES];
    struct upstream_entry upstreams[COUNTERS_UPSTREAMS_MAX];
    /* Of the counters, then of those of upstreams: "name value". */
    char names[COUNTER_COUNT + UPSTREAM_COUNTER_COUNT][COUNTERS_LABEL_MAX];
};

extern struct segment *counters_segment; /* this process's; of itself alone if it is not shared */

/* "name value" of a counter, or of one of upstreams. */
void counters_label(const struct counter_info *info, char label[COUNTERS_LABEL_MAX]);

/* Its descriptor, or -1. */
int counters_memory(void);

/* The part for what programs have counted that have ended. */
struct counters_part *counters_inherited(void);

/* Where a part of any program's begins. */
static inline char *counters_part_of(const struct segment *segment, uint32_t index)
{
    return (char *)segment + segment->parts_at + index * segment->part_bytes;
}

/* --- counters_inherit.c ----------------------------------------------------------------------- */

/* What the programs before this one have counted, and count. */
void counters_forget_before(void);
int64_t counters_sum_before(enum counter counter);
int64_t counters_sum_upstream_before(unsigned upstream, enum upstream_counter counter);

#endif
