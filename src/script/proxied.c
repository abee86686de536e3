#include "script/proxied.h"

#include "http/listener_config.h"
#include "http/message.h"
#include "http/proxy_info.h"
#include "script/build.h"
#include "script/cidr.h"

/* --- Listeners -------------------------------------------------------------------------------- */

/* core.proxy_accept({ set, ... }, timeout, optional) */
static int proxy_accept(lua_State *L)
{
    struct proxy_accept *accept = build_alloc(L, sizeof(*accept));
    accept->from = script_cidr_sets(L, 1);
    accept->timeout_ms = (uint32_t)luaL_checknumber(L, 2);
    accept->optional = lua_toboolean(L, 3);
    lua_pushlightuserdata(L, accept);
    return 1;
}

/* --- What was said ---------------------------------------------------------------------------- */

static void set_text(lua_State *L, const char *name, struct slice text)
{
    if (!text.ptr)
        return;
    lua_pushlstring(L, text.ptr, text.len);
    lua_setfield(L, -2, name);
}

static void push_tls(lua_State *L, const struct proxy_tls *tls)
{
    lua_createtable(L, 0, 6);
    set_text(L, "version", tls->version);
    set_text(L, "cn", tls->common_name);
    set_text(L, "cipher", tls->cipher);
    set_text(L, "sig_alg", tls->signature_algorithm);
    set_text(L, "key_alg", tls->key_algorithm);
    lua_pushboolean(L, tls->verdict == 0 && (tls->connected || tls->in_session));
    lua_setfield(L, -2, "verified");
}

/* All values by their numbers, for those that have no name here. */
static void push_values(lua_State *L, struct slice list)
{
    struct proxy_tlv tlv;
    lua_newtable(L);
    while (proxy_tlv_next(&list, &tlv) > 0) {
        lua_pushlstring(L, tlv.value.ptr, tlv.value.len);
        lua_rawseti(L, -2, tlv.type);
    }
}

static void push_info(lua_State *L, const struct proxy_info *info)
{
    char sender[ADDRESS_TEXT_MAX];
    const struct proxy_header *header = &info->header;
    lua_createtable(L, 0, 8);
    lua_pushinteger(L, header->version);
    lua_setfield(L, -2, "version");
    set_text(L, "ip", slice_of(sender, address_format_host(&info->sender, sender)));
    lua_pushinteger(L, address_port(&info->sender));
    lua_setfield(L, -2, "port");
    set_text(L, "authority", header->authority);
    set_text(L, "alpn", header->alpn);
    set_text(L, "unique_id", header->unique_id);
    if (header->tls.used) {
        push_tls(L, &header->tls);
        lua_setfield(L, -2, "ssl");
    }
    push_values(L, header->tlvs);
    lua_setfield(L, -2, "tlvs");
}

/* core.proxy_info(address, generation): a table; nil for a connection without a header; false when
 * the request has ended. */
static int proxy_info(lua_State *L)
{
    const struct request *request = (struct request *)(uintptr_t)luaL_checknumber(L, 1);
    if (request->generation != (uint32_t)luaL_checknumber(L, 2)) {
        lua_pushboolean(L, false);
        return 1;
    }
    if (!request->proxied)
        return 0;
    push_info(L, request->proxied);
    return 1;
}

const luaL_Reg proxied_functions[] = {
    {"proxy_accept", proxy_accept},
    {"proxy_info", proxy_info},
    {NULL, NULL},
};
