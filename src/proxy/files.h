/*
 * Static files. The rest of the path that a route's final wildcard has matched (or the whole path,
 * where no route has) names a file below a root directory, which nothing leaves: no "..", no
 * symbolic link, no encoded slash (openat2 with RESOLVE_BENEATH). Serves GET and HEAD, with entity
 * tags, conditions and ranges (RFC 9110 sections 13 and 14).
 */
#ifndef PROXY_FILES_H
#define PROXY_FILES_H

#include "base/arena.h"
#include "monolake.h"

#include <stdbool.h>
#include <stdint.h>

struct files;

struct files_config {
    const char *root;   /* directory */
    const char *index;  /* served for a directory: "index.html" */
    int64_t max_age_ms; /* of Cache-Control; -1: none is sent */
};

/* Opens the root for a site, in whose arena everything lives. Returns NULL and points *error at
 * why, e.g. "examples/public: No such file or directory". */
struct files *files_create(struct arena *arena, const struct files_config *config,
                           const char **error);

/* The layer; its instance is a struct files. */
extern const ml_layer files_layer;

#endif
