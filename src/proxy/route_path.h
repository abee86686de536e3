/* A request path in normal form, split into segments: what routes are matched against. Pure. */
#ifndef PROXY_ROUTE_PATH_H
#define PROXY_ROUTE_PATH_H

#include "base/arena.h"
#include "base/slice.h"

#include <stdbool.h>

enum { ROUTE_SEGMENTS_MAX = 128 };

struct route_path {
    struct slice segments[ROUTE_SEGMENTS_MAX]; /* decoded; "/a/" has "a" and "" */
    unsigned count;
    bool plain; /* nothing was decoded or removed: segments point into the path itself */
};

/* Splits an absolute path. Returns 0, -EINVAL for a malformed escape, a NUL or a relative path,
 * -E2BIG for too many segments, -ENOMEM. */
int route_path_split(struct route_path *split, struct slice path, struct arena *arena);

/* The segments from `index` on, joined by slashes; an encoded slash stays "%2F" here, so that it
 * cannot be taken for a separator. ptr NULL when memory is exhausted. */
struct slice route_path_rest(const struct route_path *split, unsigned index, struct arena *arena);

#endif
