#include "script/cidr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "http/message.h"
#include "net/cidr.h"
#include "script/build.h"

enum { SHOWN_MAX_BYTES = 60, MESSAGE_MAX_BYTES = 4096 };

/* A set with those that hold it: a Lua state and sites. All of them are of one thread. */
struct held_set {
    struct cidr_set *set;
    unsigned users;
};

/* Prefixes on their way from a text to a set. */
struct reading {
    struct cidr_builder builder;
    const char *where;    /* file, or NULL */
    unsigned masked_line; /* of the first prefix with bits that do not count */
    unsigned masked_count;
    char message[MESSAGE_MAX_BYTES]; /* what is wrong */
};

static void release(void *arg)
{
    struct held_set *held = arg;
    if (held && --held->users == 0) {
        cidr_set_destroy(held->set);
        free(held);
    }
}

/* --- Userdata --------------------------------------------------------------------------------- */

/* Address of this variable is the registry's key of the metatable. */
static const char metatable_key;

static int collect(lua_State *L)
{
    struct held_set **slot = lua_touserdata(L, 1);
    release(*slot);
    *slot = NULL;
    return 0;
}

static void push_metatable(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&metatable_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, collect);
    lua_setfield(L, -2, "__gc");
    lua_pushlightuserdata(L, (void *)&metatable_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

/* Takes the set over. */
static void push_set(lua_State *L, struct cidr_set *set)
{
    struct held_set **slot = lua_newuserdata(L, sizeof(struct held_set *));
    struct held_set *held = set ? malloc(sizeof(*held)) : NULL;
    *slot = held;
    push_metatable(L);
    lua_setmetatable(L, -2);
    if (!held) {
        cidr_set_destroy(set);
        luaL_error(L, "out of memory");
        return;
    }
    *held = (struct held_set){.set = set, .users = 1};
}

/* Of what Lua of ours hands over. */
static struct held_set *held_at(lua_State *L, int index)
{
    return *(struct held_set **)lua_touserdata(L, index);
}

const struct cidr_sets *script_cidr_sets(lua_State *L, int index)
{
    if (!lua_istable(L, index))
        return NULL;
    unsigned count = (unsigned)lua_objlen(L, index);
    struct cidr_sets *sets = build_alloc(L, sizeof(*sets));
    const struct cidr_set **list = build_alloc(L, (count + 1) * sizeof(struct cidr_set *));
    for (unsigned i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        struct held_set *held = held_at(L, -1);
        if (arena_defer(&build_site(L)->arena, release, held) != 0)
            luaL_error(L, "out of memory");
        held->users++;
        list[i] = held->set;
        lua_pop(L, 1);
    }
    *sets = (struct cidr_sets){list, count};
    return sets;
}

/* core.cidr_address(set): for the FFI. */
static int address(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(uintptr_t)held_at(L, 1)->set);
    return 1;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* So much of a text as a message may show. */
static void describe(struct reading *reading, struct slice text, unsigned line, const char *why)
{
    char shown[SHOWN_MAX_BYTES + 4] = "";
    size_t len = text.len < SHOWN_MAX_BYTES ? text.len : SHOWN_MAX_BYTES;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        shown[i] = c >= ' ' && c < 0x7f ? (char)c : '?';
    }
    memcpy(shown + len, len < text.len ? "..." : "", len < text.len ? 4 : 1);
    if (reading->where)
        snprintf(reading->message, sizeof(reading->message), "%s:%u: \"%s\" %s", reading->where,
                 line, shown, why);
    else
        snprintf(reading->message, sizeof(reading->message), "\"%s\" %s", shown, why);
}

/* Returns 0 or a negative errno with the message. */
static int add(struct reading *reading, struct slice text, unsigned line)
{
    struct cidr_prefix prefix;
    const char *why = NULL;
    int result = cidr_parse(text, &prefix, &why);
    if (result == 0)
        result = cidr_builder_add(&reading->builder, &prefix);
    if (result < 0) {
        describe(reading, text, line, why ? why : "is one too many: out of memory");
        return result;
    }
    if (prefix.masked && !reading->masked_count++)
        reading->masked_line = line;
    return 0;
}

/* What stands in a line before a comment ('#', or ';' as in Spamhaus's lists). */
static struct slice content(const char *line, size_t len)
{
    size_t end = 0;
    while (end < len && line[end] != '#' && line[end] != ';' && line[end] != '\n' &&
           line[end] != '\r')
        end++;
    return slice_trim(slice_of(line, end));
}

static int read_lines(struct reading *reading, FILE *file)
{
    char *line = NULL;
    size_t capacity = 0;
    int result = 0;
    ssize_t len;
    for (unsigned number = 1; result == 0 && (len = getline(&line, &capacity, file)) >= 0;
         number++) {
        struct slice text = content(line, (size_t)len);
        if (text.len)
            result = add(reading, text, number);
    }
    free(line);
    if (result == 0 && ferror(file)) {
        result = -EIO;
        snprintf(reading->message, sizeof(reading->message), "cannot read %s", reading->where);
    }
    return result;
}

static int read_file(struct reading *reading)
{
    struct stat status;
    FILE *file = fopen(reading->where, "re");
    int result = 0;
    if (!file || fstat(fileno(file), &status) != 0)
        result = -errno;
    else if (!S_ISREG(status.st_mode))
        result = S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
    if (result < 0)
        snprintf(reading->message, sizeof(reading->message), "cannot read %s: %s", reading->where,
                 strerror(-result));
    else
        result = read_lines(reading, file);
    if (file)
        fclose(file);
    return result;
}

/* The operator hears of it once, from the probe. */
static void warn_of_masked(lua_State *L, const struct reading *reading)
{
    if (!reading->masked_count || !script_of(L)->probe)
        return;
    if (reading->where)
        log_warn("%s:%u: bits behind the prefix do not count (%u such prefixes)", reading->where,
                 reading->masked_line, reading->masked_count);
    else
        log_warn("cidr: the bits behind a prefix do not count: number %u of a list (%u such "
                 "prefixes)",
                 reading->masked_line, reading->masked_count);
}

/* Leaves the set on the stack, or nil and the message. Frees what was read. */
static int finish(lua_State *L, struct reading *reading, int result)
{
    struct cidr_set *set = result == 0 ? cidr_set_create(&reading->builder) : NULL;
    cidr_builder_fini(&reading->builder);
    if (result < 0) {
        lua_pushnil(L);
        lua_pushstring(L, reading->message);
        return 2;
    }
    warn_of_masked(L, reading);
    push_set(L, set);
    return 1;
}

/* core.cidr_list({ text, ... }): a set, or nil and what is wrong. */
static int list(lua_State *L)
{
    static struct reading reading; /* large; used by one call at a time */
    int result = 0;
    reading = (struct reading){0};
    unsigned count = (unsigned)lua_objlen(L, 1);
    for (unsigned i = 1; i <= count && result == 0; i++) {
        size_t len;
        lua_rawgeti(L, 1, (int)i);
        const char *text = lua_tolstring(L, -1, &len); /* checked to be one */
        result = add(&reading, slice_of(text, len), i);
        lua_pop(L, 1);
    }
    return finish(L, &reading, result);
}

/* The set that the probe has made of the file, or NULL. */
static struct cidr_set *given(const struct script *script, const char *path)
{
    for (unsigned i = 0; i < script->given_count; i++)
        if (strcmp(script->given[i].path, path) == 0)
            return cidr_set_copy(slice_of(script->given[i].text, script->given[i].len));
    return NULL;
}

/* A file becomes part of the site even if it is of no use, so that its correction is noticed. */
static void tell(const struct script *script, const char *path, const struct cidr_set *set)
{
    struct script_source block = {.path = path, .text = ""};
    if (set) {
        block.text = (const char *)set;
        block.len = cidr_set_bytes(set);
    }
    if (script->on_file)
        script->on_file(script->on_file_arg, &block);
}

/* core.cidr_file(path): a set, or nil and what is wrong. */
static int file(lua_State *L)
{
    static struct reading reading; /* as above */
    const struct script *script = script_of(L);
    const char *path = luaL_checkstring(L, 1);
    build_site(L); /* of which it is part */
    struct cidr_set *set = given(script, path);
    if (set) {
        push_set(L, set);
        return 1;
    }
    reading = (struct reading){.where = path};
    int pushed = finish(L, &reading, read_file(&reading));
    tell(script, path, pushed == 1 ? held_at(L, -1)->set : NULL);
    return pushed;
}

const luaL_Reg cidr_functions[] = {
    {"cidr_list", list},
    {"cidr_file", file},
    {"cidr_address", address},
    {NULL, NULL},
};

/* --- FFI -------------------------------------------------------------------------------------- */

int script_cidr_text(intptr_t set, const char *text, size_t len)
{
    int result = cidr_set_contains_text((const struct cidr_set *)set, slice_of(text, len));
    return result < 0 ? ACCESS_INVALID : result;
}

int script_cidr_request(intptr_t set, intptr_t address, uint32_t generation)
{
    const struct request *request = (const struct request *)address;
    if (request->generation != generation)
        return ACCESS_OVER;
    return request->remote && cidr_set_contains((const struct cidr_set *)set, request->remote);
}
