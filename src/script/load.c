/* Loading a site: a state, the script run in it, and what it asked for. */
#include "script/interrupt.h"
#include "script/state.h"

#include <stdlib.h>
#include <string.h>

void script_close_site(struct site *site, void (*pause)(void *arg), void *arg)
{
    struct script *script = site->script;
    arena_fini(&site->arena);
    free(site);
    if (!script || !script->owns_state)
        return;
    script->memory.pause = pause;
    script->memory.pause_arg = arg;
    script_destroy(script);
}

static void close_now(struct site *site)
{
    script_close_site(site, NULL, NULL);
}

struct site *site_create(const char *path, uint64_t generation)
{
    struct site *site = calloc(1, sizeof(*site));
    if (!site)
        return NULL;
    arena_init(&site->arena);
    site->path = arena_copy(&site->arena, slice_from_cstr(path)).ptr;
    site->grace_ms = 30000;
    site->users = 1;
    site->generation = generation;
    site->destroy = close_now;
    return site;
}

struct load {
    struct script *script;
    const char *path;
};

/* load_site(path) adds the traceback to whatever the script raises. */
static void load_site(lua_State *L, void *arg)
{
    const struct load *load = arg;
    script_push_value(load->script, L, VALUE_LOAD_SITE);
    lua_pushstring(L, load->path);
    lua_call(L, 1, 0);
}

static bool run_script(struct script *script, const char *path, uint32_t time_max_ms, char **error)
{
    lua_State *L = script->L;
    if (time_max_ms)
        interrupt_begin(L, time_max_ms);
    else
        interrupt_watch(L, NULL);
    struct load what = {script, path};
    bool loaded = script_try(script, load_site, &what);
    interrupt_end();
    if (!loaded) {
        const char *why = script_error_text(L);
        *error = strdup(why ? why : "the script failed without a message");
    }
    lua_settop(L, 0);
    memory_rest(&script->memory);
    return loaded;
}

struct site *script_load_site(const char *path, const struct script_options *options, char **error)
{
    struct script *script = script_create(options, error);
    if (!script)
        return NULL;
    struct site *site = site_create(path, options->generation);
    if (!site) {
        *error = strdup("out of memory");
        script_destroy(script);
        return NULL;
    }
    site->script = script;
    script->site = site;
    bool loaded = run_script(script, path, options->time_max_ms, error);
    if (loaded && site->listener_count == 0) {
        *error = strdup("the site has no listeners: monolake.listen was not called");
        loaded = false;
    }
    script->site = NULL;
    script->given_count = 0;
    script->memory.pause = NULL;
    if (!loaded) {
        site_release(site);
        return NULL;
    }
    return site;
}

bool script_memory_over(const struct site *site)
{
    return site->script->memory.over;
}

void script_trim(struct site *site)
{
    script_trim_threads(site->script);
    memory_tidy(&site->script->memory);
}

struct script_memory_use script_memory_collect(struct site *site)
{
    struct script_memory *memory = &site->script->memory;
    memory_collect(memory);
    memory_rest(memory);
    return (struct script_memory_use){memory->used, memory->max, (uint64_t)memory_total()};
}
