#include "script/tls.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "http/exchange.h"
#include "script/build.h"
#include "script/run.h"
#include "script/secret.h"
#include "tls/system_trust.h"
#include "tls/tls_stream.h"

/* Address of this variable is the registry's key of the metatable of certificates. */
static const char certificate_key;

/* --- Certificates ----------------------------------------------------------------------------- */

static int collect_certificate(lua_State *L)
{
    struct tls_certificate **slot = lua_touserdata(L, 1);
    tls_certificate_release(*slot);
    return 0;
}

static void push_metatable(lua_State *L)
{
    lua_pushlightuserdata(L, (void *)&certificate_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1))
        return;
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, collect_certificate);
    lua_setfield(L, -2, "__gc");
    lua_pushlightuserdata(L, (void *)&certificate_key);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

/* The certificate at that place of the stack, or NULL. */
static struct tls_certificate *to_certificate(lua_State *L, int index)
{
    void *slot = lua_touserdata(L, index);
    if (!slot || !lua_getmetatable(L, index))
        return NULL;
    push_metatable(L);
    bool is_one = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is_one ? *(struct tls_certificate **)slot : NULL;
}

static struct slice slice_at(lua_State *L, int index)
{
    size_t len = 0;
    const char *text = lua_tolstring(L, index, &len);
    return slice_of(text, text ? len : 0);
}

/* The texts of a list, NULL-terminated, in memory that Lua collects; NULL for nil. Pushes one value
 * that holds them. */
static const char **texts_at(lua_State *L, int index)
{
    size_t count = lua_istable(L, index) ? lua_objlen(L, index) : 0;
    const char **texts = lua_newuserdata(L, (count + 1) * sizeof(*texts));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        texts[i] = lua_tostring(L, -1); /* the list holds it */
        lua_pop(L, 1);
    }
    texts[count] = NULL;
    return lua_istable(L, index) ? texts : NULL;
}

static int push_error(lua_State *L, char *error)
{
    lua_pushnil(L);
    lua_pushstring(L, error ? error : "out of memory");
    free(error);
    return 2;
}

static enum tls_library library_at(lua_State *L, int index)
{
    int library = tls_library_find(luaL_checkstring(L, index));
    if (library < 0)
        luaL_argerror(L, index, "not a TLS library");
    return (enum tls_library)library;
}

/* core.certificate(library, chain, key, ocsp or nil, names or nil): userdata and whether the
 * operator is to be warned that it has expired (once, by the probe, not by each worker); or nil and
 * why. */
static int certificate(lua_State *L)
{
    char *error;
    lua_settop(L, 5);
    struct tls_certificate_config config = {
        .chain = secret_at(L, 2),
        .key = secret_at(L, 3),
        .ocsp = slice_at(L, 4),
        .names = texts_at(L, 5),
    };
    enum tls_library library = library_at(L, 1);
    struct tls_certificate **slot = lua_newuserdata(L, sizeof(*slot));
    *slot = tls_certificate_load(library, &config, &error);
    if (!*slot)
        return push_error(L, error);
    push_metatable(L);
    lua_setmetatable(L, -2);
    lua_pushboolean(L, script_of(L)->probe && tls_certificate_end_s(*slot) < time(NULL));
    return 2;
}

/* --- Contexts --------------------------------------------------------------------------------- */

static unsigned count_at(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    unsigned value = (unsigned)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return value;
}

static bool flag_at(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Reads a list of names; `find` maps each to a number (they were checked). */
static unsigned numbers_at(lua_State *L, int index, const char *name, int (*find)(const char *name),
                           int *numbers, unsigned max)
{
    unsigned count = 0;
    lua_getfield(L, index, name);
    for (int i = 1; lua_istable(L, -1) && i <= (int)lua_objlen(L, -1) && count < max; i++) {
        lua_rawgeti(L, -1, i);
        numbers[count++] = find(lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return count;
}

/* Leaves one value on the stack that holds the texts. */
static void read_policy(lua_State *L, int index, struct tls_policy *policy)
{
    int numbers[TLS_CIPHER_COUNT + TLS_GROUP_COUNT];
    policy->version_min = count_at(L, index, "version_min");
    policy->version_max = count_at(L, index, "version_max");
    policy->cipher_count =
        numbers_at(L, index, "ciphers", tls_cipher_find, numbers, TLS_CIPHER_COUNT);
    for (unsigned i = 0; i < policy->cipher_count; i++)
        policy->ciphers[i] = (enum tls_cipher)numbers[i];
    policy->group_count = numbers_at(L, index, "groups", tls_group_find, numbers, TLS_GROUP_COUNT);
    for (unsigned i = 0; i < policy->group_count; i++)
        policy->groups[i] = (enum tls_group)numbers[i];
    lua_getfield(L, index, "alpn");
    policy->alpn = texts_at(L, lua_gettop(L));
}

static void release_server(void *arg)
{
    tls_server_release(arg);
}

/*
 * core.tls_server(library, { certificates = {...}, strict_sni =, asks_hello =, client_auth = 0..2,
 * client_ca = PEM, tickets =, version_min = 12, version_max = 13, ciphers = {...}, groups = {...},
 * alpn = {...} }): a light userdata that lives as long as the site, or nil and why.
 */
static int server(lua_State *L)
{
    char *error;
    struct site *site = build_site(L);
    enum tls_library library = library_at(L, 1);
    struct tls_server_config config = {
        .strict_sni = flag_at(L, 2, "strict_sni"),
        .asks_hello = flag_at(L, 2, "asks_hello"),
        .client_auth = count_at(L, 2, "client_auth"),
        .ticket_secret = flag_at(L, 2, "tickets") ? tls_ticket_secret() : NULL,
    };
    read_policy(L, 2, &config.policy);
    lua_getfield(L, 2, "client_ca");
    config.client_authorities = slice_at(L, -1);
    lua_getfield(L, 2, "certificates");
    config.certificate_count = (unsigned)lua_objlen(L, -1);
    struct tls_certificate **certificates =
        build_alloc(L, (config.certificate_count + 1) * sizeof(struct tls_certificate *));
    for (unsigned i = 0; i < config.certificate_count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        certificates[i] = to_certificate(L, -1);
        assert(certificates[i]);
        lua_pop(L, 1);
    }
    config.certificates = certificates;
    struct tls_server *server = tls_server_create(library, &config, &error);
    if (!server)
        return push_error(L, error);
    if (arena_defer(&site->arena, release_server, server) != 0) {
        tls_server_release(server);
        return luaL_error(L, "out of memory");
    }
    lua_pushlightuserdata(L, server);
    return 1;
}

static void release_client(void *arg)
{
    tls_client_release(arg);
}

/* core.tls_client(library, { insecure =, ca = PEM or nil, certificate = or nil, version_min =
 * ...}): as core.tls_server. */
static int client(lua_State *L)
{
    char *error;
    struct site *site = build_site(L);
    enum tls_library library = library_at(L, 1);
    struct tls_client_config config = {.insecure = flag_at(L, 2, "insecure")};
    read_policy(L, 2, &config.policy);
    lua_getfield(L, 2, "ca");
    config.authorities = slice_at(L, -1);
    lua_getfield(L, 2, "certificate");
    config.certificate = to_certificate(L, -1);
    struct tls_client *client = tls_client_create(library, &config, &error);
    if (!client)
        return push_error(L, error);
    if (arena_defer(&site->arena, release_client, client) != 0) {
        tls_client_release(client);
        return luaL_error(L, "out of memory");
    }
    lua_pushlightuserdata(L, client);
    return 1;
}

/* core.tls_default_library(): "openssl" or "gnutls". */
static int default_library(lua_State *L)
{
    lua_pushstring(L, tls_library_name(tls_default_library()));
    return 1;
}

/* core.tls_system_stamp(): a text that changes when the system's authorities do. */
static int system_stamp(lua_State *L)
{
    lua_pushfstring(L, "%f", (double)(tls_system_trust_stamp() >> 12));
    return 1;
}

/* --- Hellos ----------------------------------------------------------------------------------- */

struct script_hello {
    struct tls_hello_hook hook;
    struct script *script;
    int ref; /* of the function; the state's end frees it */
};

/* One hello on its way through Lua. */
struct asking {
    const struct script_hello *self;
    const struct tls_hello *hello;
    struct tls_certificate *certificate; /* retained */
    bool refused;
};

static void push_alpn(lua_State *L, struct slice alpn)
{
    lua_newtable(L);
    int count = 0;
    for (size_t at = 0; at < alpn.len;) {
        size_t len = (uint8_t)alpn.ptr[at];
        if (len > alpn.len - at - 1)
            break;
        lua_pushlstring(L, alpn.ptr + at + 1, len);
        lua_rawseti(L, -2, ++count);
        at += 1 + len;
    }
}

static int push_hello(struct call *call, lua_State *L)
{
    const struct asking *asking = call->owner;
    lua_rawgeti(L, LUA_REGISTRYINDEX, asking->self->ref);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, asking->hello->name);
    lua_setfield(L, -2, "name");
    push_alpn(L, asking->hello->alpn);
    lua_setfield(L, -2, "alpn");
    return 1;
}

/* A certificate, nil: as configured, or false: refused. */
static void take_answer(struct call *call, lua_State *L)
{
    struct asking *asking = call->owner;
    asking->certificate = to_certificate(L, 1);
    asking->refused = lua_isboolean(L, 1);
    if (asking->certificate)
        tls_certificate_retain(asking->certificate);
}

static int answer_hello(struct tls_hello_hook *hook, const struct tls_hello *hello,
                        struct tls_certificate **certificate, int64_t deadline)
{
    struct script_hello *self = container_of(hook, struct script_hello, hook);
    struct asking asking = {.self = self, .hello = hello};
    struct call call = {
        .script = self->script,
        .deadline = deadline,
        .push = push_hello,
        .push_allocates = true,
        .finish = take_answer,
        .owner = &asking,
    };
    call_run(&call, true);
    *certificate = asking.certificate;
    if (call.state != CALL_RETURNED && clock_now_ms() >= deadline)
        return -ETIMEDOUT;
    return call.state != CALL_RETURNED || asking.refused ? -EACCES : 0;
}

struct tls_hello_hook *script_hello_hook(lua_State *L, int index)
{
    struct script_hello *self = build_alloc(L, sizeof(*self));
    self->hook.answer = answer_hello;
    self->script = script_of(L);
    lua_pushvalue(L, index);
    self->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return &self->hook;
}

/* --- What was agreed on ----------------------------------------------------------------------- */

static void set_text(lua_State *L, const char *name, const char *value)
{
    if (!value || !value[0])
        return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void push_peer(lua_State *L, const struct tls_session *session)
{
    struct tls_peer peer;
    if (tls_describe_peer(session, &peer) != 0)
        return;
    lua_createtable(L, 0, 5);
    set_text(L, "subject", peer.subject);
    set_text(L, "issuer", peer.issuer);
    set_text(L, "serial", peer.serial);
    set_text(L, "fingerprint", peer.fingerprint);
    set_text(L, "names", peer.names);
    tls_peer_free(&peer);
    lua_setfield(L, -2, "client");
}

/* core.tls_info(address, generation): a table; nil for a connection in the clear; false when the
 * request has ended. */
static int tls_info(lua_State *L)
{
    const struct request *request = (struct request *)(uintptr_t)luaL_checknumber(L, 1);
    if (request->generation != (uint32_t)luaL_checknumber(L, 2)) {
        lua_pushboolean(L, false);
        return 1;
    }
    if (!request->tls)
        return 0;
    struct tls_info info;
    tls_describe(request->tls, &info);
    lua_createtable(L, 0, 6);
    set_text(L, "version", info.version);
    set_text(L, "cipher", info.cipher);
    set_text(L, "name", info.name);
    set_text(L, "alpn", info.alpn);
    lua_pushboolean(L, info.resumed);
    lua_setfield(L, -2, "resumed");
    if (info.has_peer)
        push_peer(L, request->tls);
    return 1;
}

const luaL_Reg tls_functions[] = {
    {"certificate", certificate},
    {"tls_server", server},
    {"tls_client", client},
    {"tls_default_library", default_library},
    {"tls_info", tls_info},
    {"tls_system_stamp", system_stamp},
    {NULL, NULL},
};
