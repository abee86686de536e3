#include "script/peek.h"

#include <errno.h>
#include <stdlib.h>

#include "io/wait.h"
#include "l4/conn.h"
#include "l4/peek.h"
#include "net/peek.h"
#include "script/run.h"
#include "tls/fingerprint.h"

/* --- Waiting ---------------------------------------------------------------------------------- */

/* A client is listened to in the coroutine of its own chain only: NULL for another's, and for one
 * of datagrams. The call's result says why. */
static struct stream *stream_of(struct call *call)
{
    const struct l4_conn *conn = call->result == 0 ? l4_conn_of(call->request) : NULL;
    if (conn && conn->connection && !conn->tunnel)
        return &conn->connection->stream;
    call->result = conn && conn->of_datagrams ? -EOPNOTSUPP : -EINVAL;
    return NULL;
}

static void take(struct call *call, lua_State *L, int ms)
{
    bool own = call->next && (uintptr_t)lua_tonumber(L, 2) == (uintptr_t)call->request;
    call->result = own ? 0 : -EINVAL;
    call->milliseconds = (int64_t)lua_tonumber(L, ms);
}

static int64_t deadline_of(const struct call *call, const struct stream *stream)
{
    int64_t until = io_now_ms(stream->io) + call->milliseconds;
    return until < call->deadline ? until : call->deadline;
}

/* nil and why not. The layers' time being over is no answer, but an error. */
static int give_failure(const struct call *call, lua_State *L)
{
    bool all_over = call->deadline <= io_now_ms(call->request->exchange->io);
    lua_pushnil(L);
    if (call->result == -ETIMEDOUT && !all_over)
        lua_pushliteral(L, "timeout");
    else if (call->result == -ECONNRESET || call->result == -EPIPE || call->result == -EPROTO)
        lua_pushliteral(L, "closed");
    else if (call->result == -ENOBUFS)
        lua_pushliteral(L, "too large");
    else
        lua_pushinteger(L, call->result);
    return 2;
}

/* --- peek ------------------------------------------------------------------------------------- */

void peek_take(struct call *call, lua_State *L)
{
    take(call, L, 4);
    call->bytes_max = (uint64_t)lua_tonumber(L, 3);
}

void peek_perform(struct call *call)
{
    struct stream *stream = stream_of(call);
    call->result = stream ? l4_peek(stream, call->bytes_max, deadline_of(call, stream)) : -EINVAL;
}

static void push_queued(const struct stream *stream, size_t max, lua_State *L)
{
    luaL_Buffer buffer;
    struct slice piece;
    luaL_buffinit(L, &buffer);
    for (size_t at = 0; at < max && (piece = peek_at(stream, at)).len; at += piece.len)
        luaL_addlstring(&buffer, piece.ptr, piece.len < max - at ? piece.len : max - at);
    luaL_pushresult(&buffer);
}

int peek_give(struct call *call, lua_State *L)
{
    const struct l4_conn *conn = l4_conn_of(call->request);
    if (call->result < 0) {
        int count = give_failure(call, L);
        if (call->result != -ETIMEDOUT)
            return count;
    }
    push_queued(&conn->connection->stream, call->bytes_max, L);
    return call->result < 0 ? 3 : 1;
}

/* --- client_hello ----------------------------------------------------------------------------- */

void hello_take(struct call *call, lua_State *L)
{
    take(call, L, 3);
}

void hello_perform(struct call *call)
{
    struct stream *stream = stream_of(call);
    call->hello = stream ? malloc(sizeof(*call->hello)) : NULL;
    if (call->hello)
        call->result = l4_read_hello(stream, call->hello, deadline_of(call, stream));
    else if (stream)
        call->result = -ENOMEM;
}

static void set_numbers(lua_State *L, const char *name, struct slice list)
{
    uint16_t number;
    lua_createtable(L, (int)(list.len / 2), 0);
    for (int i = 1; client_hello_next_number(&list, &number); i++) {
        lua_pushinteger(L, number);
        lua_rawseti(L, -2, i);
    }
    lua_setfield(L, -2, name);
}

static void set_extensions(lua_State *L, struct slice rest)
{
    uint16_t type;
    struct slice data;
    lua_newtable(L);
    for (int i = 1; client_hello_next_extension(&rest, &type, &data); i++) {
        lua_pushinteger(L, type);
        lua_rawseti(L, -2, i);
    }
    lua_setfield(L, -2, "extensions");
}

static void set_point_formats(lua_State *L, struct slice list)
{
    lua_createtable(L, (int)list.len, 0);
    for (size_t i = 0; i < list.len; i++) {
        lua_pushinteger(L, (uint8_t)list.ptr[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "point_formats");
}

static void set_alpn(lua_State *L, struct slice alpn)
{
    lua_newtable(L);
    for (int i = 1; alpn.len; i++) {
        size_t len = (uint8_t)alpn.ptr[0];
        lua_pushlstring(L, alpn.ptr + 1, len);
        lua_rawseti(L, -2, i);
        alpn = slice_of(alpn.ptr + 1 + len, alpn.len - 1 - len);
    }
    lua_setfield(L, -2, "alpn");
}

static void push_version(lua_State *L, uint16_t version)
{
    if (version == 0x0300)
        lua_pushliteral(L, "SSLv3");
    else if (version == 0x0301)
        lua_pushliteral(L, "TLSv1");
    else if (version > 0x0301 && version <= 0x0304)
        lua_pushfstring(L, "TLSv1.%d", version - 0x0301);
    else
        lua_pushfstring(L, "%d", version);
}

static void set_versions(lua_State *L, const struct client_hello *hello)
{
    struct slice rest = hello->versions;
    uint16_t version;
    int count = 0;
    push_version(L, client_hello_version(hello));
    lua_setfield(L, -2, "version");
    push_version(L, hello->legacy_version);
    lua_setfield(L, -2, "legacy_version");
    lua_newtable(L);
    while (client_hello_next_number(&rest, &version))
        if (!client_hello_is_grease(version)) {
            push_version(L, version);
            lua_rawseti(L, -2, ++count);
        }
    if (!hello->versions.len) {
        push_version(L, hello->legacy_version);
        lua_rawseti(L, -2, 1);
    }
    lua_setfield(L, -2, "versions");
}

static void set_fingerprints(lua_State *L, const struct client_hello *hello)
{
    char text[FINGERPRINT_JA3_MAX_BYTES];
    char hash[FINGERPRINT_JA3_HASH_BYTES];
    char ja4[FINGERPRINT_JA4_BYTES];
    struct slice ja3 = slice_of(text, fingerprint_ja3(hello, text));
    lua_pushlstring(L, ja3.ptr, ja3.len);
    lua_setfield(L, -2, "ja3");
    if (fingerprint_ja3_hash(ja3, hash) == 0) {
        lua_pushstring(L, hash);
        lua_setfield(L, -2, "ja3_hash");
    }
    if (fingerprint_ja4(hello, ja4) == 0) {
        lua_pushstring(L, ja4);
        lua_setfield(L, -2, "ja4");
    }
}

/* The rest is filled in when it is asked for: most ask for the name only. */
static void push_hello(lua_State *L, const struct l4_hello *hello)
{
    lua_createtable(L, 0, 8);
    if (hello->hello.name[0]) {
        lua_pushstring(L, hello->hello.name);
        lua_setfield(L, -2, "name");
    }
    set_alpn(L, hello->hello.alpn);
    set_versions(L, &hello->hello);
    lua_pushlstring(L, (const char *)hello->message, hello->message_len);
    lua_setfield(L, -2, "message");
}

/* The message at 2 was parsed once; false if a script has put something else there. */
static bool parse_again(lua_State *L, struct client_hello *hello)
{
    size_t len;
    const char *bytes = luaL_checklstring(L, 2, &len);
    lua_pushvalue(L, 1); /* on top, for what sets fields; the message stays below it */
    return len <= CLIENT_HELLO_MAX_BYTES && client_hello_parse(slice_of(bytes, len), hello) == 0;
}

/* core.hello_lists(hello, message): sets the lists of numbers. */
static int hello_lists(lua_State *L)
{
    struct client_hello hello;
    if (!parse_again(L, &hello))
        return 0;
    set_numbers(L, "ciphers", hello.ciphers);
    set_extensions(L, hello.extensions);
    set_numbers(L, "groups", hello.groups);
    set_point_formats(L, hello.point_formats);
    set_numbers(L, "signature_algorithms", hello.signature_algorithms);
    return 0;
}

/* core.hello_fingerprints(hello, message): sets them. */
static int hello_fingerprints(lua_State *L)
{
    struct client_hello hello;
    if (parse_again(L, &hello))
        set_fingerprints(L, &hello);
    return 0;
}

const luaL_Reg peek_functions[] = {
    {"hello_lists", hello_lists},
    {"hello_fingerprints", hello_fingerprints},
    {NULL, NULL},
};

static int give_verdict(const struct call *call, lua_State *L)
{
    switch (call->result) {
    case CLIENT_HELLO_DONE:
        push_hello(L, call->hello);
        return 1;
    case CLIENT_HELLO_NOT_TLS:
        lua_pushnil(L);
        lua_pushliteral(L, "not tls");
        return 2;
    case CLIENT_HELLO_MALFORMED:
        lua_pushnil(L);
        lua_pushliteral(L, "malformed");
        return 2;
    case CLIENT_HELLO_TOO_LARGE:
        lua_pushnil(L);
        lua_pushliteral(L, "too large");
        return 2;
    default:
        return give_failure(call, L);
    }
}

int hello_give(struct call *call, lua_State *L)
{
    int count = give_verdict(call, L);
    free(call->hello);
    call->hello = NULL;
    return count;
}

/* --- detect ----------------------------------------------------------------------------------- */

void detect_perform(struct call *call)
{
    struct stream *stream = stream_of(call);
    if (stream)
        call->result = l4_await_protocol(stream, deadline_of(call, stream));
}

int detect_give(struct call *call, lua_State *L)
{
    if (call->result < 0)
        return give_failure(call, L);
    lua_pushstring(L, l4_protocol_name((enum l4_protocol)call->result));
    return 1;
}
