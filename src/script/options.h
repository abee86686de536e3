/*
 * The options of listeners and upstreams as scripts name them: one table for reading them, for
 * checking them (lua/check.lua) and for printing those that differ from their defaults.
 */
#ifndef SCRIPT_OPTIONS_H
#define SCRIPT_OPTIONS_H

#include "base/arena.h"

#include <lua.h>
#include <stddef.h>

enum option_kind {
    OPTION_DURATION,   /* uint32_t milliseconds; Lua: seconds or "250ms", "30s", "5m", "1h" */
    OPTION_COUNT,      /* uint32_t */
    OPTION_BYTES,      /* uint32_t; Lua: bytes or "16k", "1m", "1g" */
    OPTION_BYTES64,    /* uint64_t */
    OPTION_FLAG,       /* bool */
    OPTION_PROTOCOL,   /* enum upstream_protocol; Lua: "h1", "h2", "auto", "tcp" ... */
    OPTION_SEND_PROXY, /* uint32_t, bits SEND_PROXY_*; Lua: see lua/monolake/internal/proxied.lua */
    OPTION_PROTOCOLS,  /* uint32_t, bits PROTOCOL_*; Lua: a list of "h1", "h2", "h2c" */
};

struct option {
    const char *name;
    enum option_kind kind;
    size_t offset; /* in the struct */
};

struct option_set {
    const char *name;
    const struct option *options;
    size_t count;
    void (*init)(void *config); /* fills in the defaults */
    size_t config_size;
};

extern const struct option_set listener_options;
extern const struct option_set upstream_options;

/* Reads the options that the (checked) table at `index` has into `config`. */
void options_read(const struct option_set *set, lua_State *L, int index, void *config);

/* Pushes { name = kind, ... } for the checks. */
void options_push_kinds(const struct option_set *set, lua_State *L);

/* "idle_timeout=5s body_max=1m": those that differ from their defaults; "" if none. */
struct slice options_describe(const struct option_set *set, const void *config,
                              struct arena *arena);

#endif
