/*
 * A Lua state with the program's own Lua in it: the standard libraries, the embedded modules and
 * the pool of Lua coroutines that requests run in. One per generation, or the state of a plain
 * LuaJIT that has loaded monolake/core.so. Never suspends.
 */
#ifndef SCRIPT_STATE_H
#define SCRIPT_STATE_H

#include "base/log.h"
#include "script/memory.h"
#include "script/script.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct io;

enum { THREADS_IDLE_MAX = 256 };

/* A Lua coroutine that is used again and again. */
struct thread {
    lua_State *L;
    int ref;             /* keeps it from being collected */
    struct thread *next; /* in the list of idle ones */
};

/* Values in the registry that C asks for. */
enum script_value {
    VALUE_HANDLES,     /* table: address of a request -> its handle */
    VALUE_LOAD_SITE,   /* function(path): runs a site's script, returns what it asked for */
    VALUE_NEXT_CHUNK,  /* function(address, generation, index): next piece of an iterator's body */
    VALUE_MAP_CHUNK,   /* function(address, generation, index, chunk, last): a mapped piece */
    VALUE_CONN_CLOSED, /* function(address, generation, reason, error, client_bytes, peer_bytes,
                          seconds, peer): runs what waits for a connection's end */
    /* Those that are not of boot. */
    VALUE_NO_MEMORY, /* the text of a failed allocation */
    VALUE_DEAD,      /* the text of a coroutine that cannot be resumed: is not to be collected */
    VALUE_COUNT,
    VALUES_OF_BOOT = VALUE_NO_MEMORY
};

struct script {
    lua_State *L;
    bool owns_state;     /* closes it at the end */
    struct io *io;       /* NULL in the probe */
    struct site *site;   /* being built or served; NULL outside a site */
    struct thread *idle; /* coroutines that are not in use */
    uint32_t idle_count;
    uint32_t idle_floor;     /* its lowest value since the last trim */
    uint32_t thread_count;   /* all that exist */
    int values[VALUE_COUNT]; /* registry references */
    struct log_limit errors; /* of layers */
    struct script_memory memory;
    bool probe;
    int sources;                       /* registry reference: path -> text; LUA_NOREF: none */
    const struct script_source *given; /* the same and more while a site is loaded; borrowed */
    unsigned given_count;
    void (*on_file)(void *arg, const struct script_source *file); /* see script_options */
    void *on_file_arg;
};

/* Makes a state with everything in it. NULL with *error (malloc'ed) when that fails. */
struct script *script_create(const struct script_options *options, char **error);

/* Adopts the state of a plain LuaJIT; there is one script for it, made at the first call. */
struct script *script_adopt(lua_State *L);

/* Frees the coroutines and, if owned, the state. No request may be using it. */
void script_destroy(struct script *script);

/* The script that runs in this state. */
struct script *script_of(lua_State *L);

/* Runs `work` where an allocation may fail, which outside of Lua would end the process: on the
 * script's own state, never on a coroutine's, for errors unwind what runs. False if it has raised
 * an error, which is left on top of that state. Main stack only, as all that follow. */
bool script_try(struct script *script, void (*work)(lua_State *L, void *arg), void *arg);

/* To be called at once for a coroutine that has failed, if an allocation has (LUA_ERRMEM): LuaJIT
 * may leave the top of its stack below the functions that it is in, and the next collection would
 * clear what lies above, and then walk through it. Allocates nothing. */
void script_mend_thread(struct script *script, lua_State *L);

/* Takes an idle Lua coroutine or makes one; NULL when memory is exhausted. */
struct thread *script_take_thread(struct script *script);

/* Gives back a coroutine whose function has returned. */
void script_return_thread(struct script *script, struct thread *thread);

/* Gives up a coroutine that failed or will not be resumed: it is collected. */
void script_drop_thread(struct script *script, struct thread *thread);

/* Gives up half of the coroutines that have lain unused since the last call. */
void script_trim_threads(struct script *script);

/* The error on top, if it is a text; else NULL. Allocates nothing. */
const char *script_error_text(lua_State *L);

/* Pushes one of the values. Allocates nothing. */
void script_push_value(struct script *script, lua_State *L, enum script_value value);

/* An empty site; `generation` counts reloads. NULL when memory is exhausted. */
struct site *site_create(const char *path, uint64_t generation);

/* Puts the embedded modules and "monolake.core" into package.preload. */
void script_preload(lua_State *L);

/* The functions of "monolake.core"; for require. */
int luaopen_monolake_core(lua_State *L);

#endif
