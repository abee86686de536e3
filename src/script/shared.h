/* Shared dictionaries for Lua; see shared/dict.h for what the functions return. Never suspends. */
#ifndef SCRIPT_SHARED_H
#define SCRIPT_SHARED_H

#include "script/access.h"

#include <lauxlib.h>

/* core.shared_open, core.shared_address. */
extern const luaL_Reg shared_functions[];

/* A value on its way; type: enum shared_type. */
struct script_shared {
    int type;
    double number;
    const char *ptr;
    size_t len;
};

/* For the FFI. Times in milliseconds. */
ML_API int script_shared_get(intptr_t dict, const char *key, size_t len, struct script_shared *out);
ML_API int script_shared_put(intptr_t dict, int how, const char *key, size_t len,
                             const struct script_shared *value, double ttl_ms);
ML_API int script_shared_incr(intptr_t dict, const char *key, size_t len, double by, int has_init,
                              double init, double ttl_ms, struct script_shared *out);
ML_API int script_shared_delete(intptr_t dict, const char *key, size_t len);
ML_API int script_shared_ttl(intptr_t dict, const char *key, size_t len, double *left_ms);
ML_API int script_shared_expire(intptr_t dict, const char *key, size_t len, double ttl_ms);
ML_API int script_shared_flush(intptr_t dict);

/* Fills eight numbers, in the order of struct shared_stats. */
ML_API int script_shared_stats(intptr_t dict, double *out);

#endif
