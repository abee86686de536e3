#include "script/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls/digest.h"

enum { FILE_MAX_BYTES = 16 << 20, PIECE_BYTES = 4096 };

struct secret {
    char *bytes; /* owned, not NUL-terminated; NULL: empty */
    size_t len;
    size_t capacity;
};

/* Address of this variable is the registry's key of the metatable of secrets. */
static const char secret_key;

/* --- The bytes -------------------------------------------------------------------------------- */

static void wipe(struct secret *secret)
{
    if (secret->bytes)
        explicit_bzero(secret->bytes, secret->capacity);
    free(secret->bytes);
    *secret = (struct secret){0};
}

/* Makes room, without leaving a copy behind as realloc does. */
static int reserve(struct secret *secret, size_t capacity)
{
    struct secret grown = {.bytes = malloc(capacity), .len = secret->len, .capacity = capacity};
    if (!grown.bytes)
        return -ENOMEM;
    if (secret->len)
        memcpy(grown.bytes, secret->bytes, secret->len);
    wipe(secret);
    *secret = grown;
    return 0;
}

static int set(struct secret *secret, const char *text, size_t len)
{
    int result = reserve(secret, len ? len : 1);
    if (result < 0)
        return result;
    if (len)
        memcpy(secret->bytes, text, len);
    secret->len = len;
    return 0;
}

/* A pipe does not say how much there is. */
static int read_all(struct secret *secret, int fd)
{
    struct stat status;
    size_t size = fstat(fd, &status) == 0 && status.st_size > 0 ? (size_t)status.st_size : 0;
    int result = size > FILE_MAX_BYTES ? -EFBIG : reserve(secret, size + PIECE_BYTES);
    while (result == 0) {
        ssize_t got = read(fd, secret->bytes + secret->len, secret->capacity - secret->len);
        if (got <= 0)
            return got < 0 ? -errno : 0;
        secret->len += (size_t)got;
        if (secret->len > FILE_MAX_BYTES)
            result = -EFBIG;
        else if (secret->len == secret->capacity)
            result = reserve(secret, 2 * secret->capacity);
    }
    return result;
}

static int read_path(struct secret *secret, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = read_all(secret, fd);
    close(fd);
    return result;
}

/* --- For Lua ---------------------------------------------------------------------------------- */

static int collect(lua_State *L)
{
    wipe(lua_touserdata(L, 1));
    return 0;
}

static struct secret *push_secret(lua_State *L)
{
    struct secret *secret = lua_newuserdata(L, sizeof(*secret));
    *secret = (struct secret){0};
    lua_pushlightuserdata(L, (void *)&secret_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, collect);
        lua_setfield(L, -2, "__gc");
        lua_pushlightuserdata(L, (void *)&secret_key);
        lua_pushvalue(L, -2);
        lua_rawset(L, LUA_REGISTRYINDEX);
    }
    lua_setmetatable(L, -2);
    return secret;
}

static struct secret *to_secret(lua_State *L, int index)
{
    struct secret *secret = lua_touserdata(L, index);
    if (!secret || !lua_getmetatable(L, index))
        return NULL;
    lua_pushlightuserdata(L, (void *)&secret_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    bool is_one = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is_one ? secret : NULL;
}

struct slice secret_at(lua_State *L, int index)
{
    const struct secret *secret = to_secret(L, index);
    return secret ? slice_of(secret->bytes, secret->len) : SLICE("");
}

/* What the probe has found in the file, or NULL. */
static const struct script_source *given(const struct script *script, const char *path)
{
    for (unsigned i = 0; i < script->given_count; i++)
        if (script->given[i].secret && strcmp(script->given[i].path, path) == 0)
            return &script->given[i];
    return NULL;
}

/* core.secret_file(path): what is in the file, which becomes part of a site that is being loaded;
 * or nil and why there is nothing. */
static int secret_file(lua_State *L)
{
    const struct script *script = script_of(L);
    const char *path = luaL_checkstring(L, 1);
    const struct script_source *source = given(script, path);
    struct secret *secret = push_secret(L);
    int result = source ? set(secret, source->text, source->len) : read_path(secret, path);
    if (result < 0) {
        wipe(secret);
        lua_pushnil(L);
        lua_pushfstring(L, "cannot read %s: %s", path, strerror(-result));
        return 2;
    }
    const struct script_source file = {path, secret->bytes, secret->len, true};
    if (script->on_file && script->site)
        script->on_file(script->on_file_arg, &file);
    return 1;
}

/* core.secret_text(text): for one that a script holds. */
static int secret_text(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    if (set(push_secret(L), text, len) < 0)
        luaL_error(L, "out of memory");
    return 1;
}

/* core.secret_digest(secret): tells two of them apart, and nothing of either. */
static int secret_digest(lua_State *L)
{
    uint8_t digest[DIGEST_SHA256_BYTES];
    if (digest_sha256(secret_at(L, 1), digest) != 0)
        luaL_error(L, "out of memory");
    lua_pushlstring(L, (const char *)digest, sizeof(digest));
    return 1;
}

/* core.secret_wipe(secret): it is empty from now on. */
static int secret_wipe(lua_State *L)
{
    struct secret *secret = to_secret(L, 1);
    if (secret)
        wipe(secret);
    return 0;
}

const luaL_Reg secret_functions[] = {
    {"secret_file", secret_file},
    {"secret_text", secret_text},
    {"secret_digest", secret_digest},
    {"secret_wipe", secret_wipe},
    {NULL, NULL},
};
