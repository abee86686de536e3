/*
 * What happens in the program, counted over all of its workers. The counts lie in memory that the
 * supervisor maps before it forks: each process adds to a part of its own, so that counting is an
 * addition to memory that nobody else writes, and readers make the sums. The parts stay when their
 * worker dies, for the one that takes its place goes on with them.
 *
 *   ┌ header, names of counters ┬ names of upstreams ┬ worker 0 ┬ ... ┬ supervisor ┬ inherited ┐
 *
 * A program that takes over (SIGUSR2) is left the memory of the one before it, finds the counts
 * there by the counters' names, whichever it knows itself, and shows the sums of both; what was
 * open there counts until that program has ended. Without counters_open a process counts for
 * itself. Never suspends.
 */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum counter {
#define COUNTER(id, name, label, value, help) COUNTER_##id,
#define GAUGE(id, name, label, value, help)   COUNTER_##id,
#include "base/counter_list.h"
    COUNTER_COUNT
};

enum upstream_counter {
#define UPSTREAM_COUNTER(id, name, help) UPSTREAM_##id,
#include "base/counter_list.h"
    UPSTREAM_COUNTER_COUNT
};

/* How they are shown. */
struct counter_info {
    const char *name;
    const char *label; /* "": it has none */
    const char *value; /* of the label */
    const char *help;  /* "": that of the counter of the same name before it */
    bool gauge;
};

extern const struct counter_info counter_infos[COUNTER_COUNT];
extern const struct counter_info upstream_counter_infos[UPSTREAM_COUNTER_COUNT];

enum {
    COUNTERS_UPSTREAMS_MAX = 1024,
    COUNTERS_UPSTREAM_OTHERS = 0, /* those beyond count as one, "(others)" */
    COUNTERS_NAME_MAX = 128,      /* of an upstream; the rest is cut */
};

/* What one process counts. */
struct counters_part {
    _Alignas(64) _Atomic int64_t values[COUNTER_COUNT];
    _Alignas(64) _Atomic int64_t upstreams[COUNTERS_UPSTREAMS_MAX][UPSTREAM_COUNTER_COUNT];
};

extern struct counters_part *counters_own;

/* Of one part only one process is the writer. */
static inline void counters_add_to(_Atomic int64_t *count, int64_t difference)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + difference,
                          memory_order_relaxed);
}

static inline void counters_add(enum counter counter, int64_t difference)
{
    counters_add_to(&counters_own->values[counter], difference);
}

static inline void counters_add_upstream(unsigned upstream, enum upstream_counter counter,
                                         int64_t difference)
{
    counters_add_to(&counters_own->upstreams[upstream][counter], difference);
}

/* Maps them for so many workers; the calling process, the supervisor, has a part of its own.
 * Returns 0 or a negative errno: then each process counts for itself. */
int counters_open(unsigned workers);

/* In a program that takes over, behind counters_open: takes the memory of one before it, and the
 * descriptor. Returns 0, -EPROTO: it is none, or -EPROTONOSUPPORT: it has another layout; then the
 * descriptor stays the caller's. */
int counters_inherit(int fd);

/* The descriptors of all memory that is to be left to the next program, at most `max`. Returns how
 * many. */
unsigned counters_leave_behind(int *fds, unsigned max);

/* In a worker: counts there from now on. */
void counters_be_worker(unsigned worker);

/* In a process that is to leave no trace (the probe of a site): counts for itself. */
void counters_leave(void);

/* A worker has ended: nothing of it is open any more. What it has counted stays. */
void counters_worker_ended(unsigned worker);

/* The place of the upstream of that name, which is given one if it has none. Places are never given
 * up, for their counts are to be seen. */
unsigned counters_upstream(const char *name);

/* The sums over all parts. */
int64_t counters_sum(enum counter counter);
int64_t counters_sum_upstream(unsigned upstream, enum upstream_counter counter);

/* The name of the upstream at a place, or NULL: there is none. */
const char *counters_upstream_name(unsigned upstream);

#endif
