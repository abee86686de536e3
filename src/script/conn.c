#include "script/conn.h"

#include <errno.h>

#include "base/clock.h"
#include "l4/conn.h"
#include "l4/http_site.h"
#include "l4/udp_flow.h"
#include "proxy/site.h"
#include "script/run.h"

enum { ON_CLOSE_MS = 60000 }; /* how long functions of on_close may wait */

/* The connection if it has not ended. */
static struct l4_conn *live(intptr_t address, uint32_t generation)
{
    struct request *request = (struct request *)address;
    return request->generation == generation ? l4_conn_of(request) : NULL;
}

int script_conn_state(intptr_t address, uint32_t generation, intptr_t response)
{
    const struct l4_conn *conn = live(address, generation);
    const struct response *last = (const struct response *)response;
    if (!conn)
        return ACCESS_OVER;
    if (l4_conn_connected(conn, last))
        return 1;
    return conn->verdict ? 2 : 0;
}

int script_conn_end(intptr_t address, uint32_t generation, int reset)
{
    struct l4_conn *conn = live(address, generation);
    if (!conn)
        return ACCESS_OVER;
    l4_conn_end(conn, reset ? L4_RESET : L4_CLOSED);
    return ACCESS_FOUND;
}

int script_conn_serve(intptr_t address, uint32_t generation, void *http)
{
    struct l4_conn *conn = live(address, generation);
    if (!conn)
        return ACCESS_OVER;
    if (conn->of_datagrams)
        return ACCESS_NONE;
    return l4_http_site_serve(http, conn) == 0 ? ACCESS_FOUND : ACCESS_INVALID;
}

int script_conn_is_flow(intptr_t address, uint32_t generation)
{
    const struct l4_conn *conn = live(address, generation);
    return conn ? conn->of_datagrams : ACCESS_OVER;
}

int script_conn_datagram(intptr_t address, uint32_t generation, struct script_text *out)
{
    const struct l4_conn *conn = live(address, generation);
    if (!conn)
        return ACCESS_OVER;
    if (!conn->flow || !conn->flow->queue)
        return ACCESS_NONE;
    *out = (struct script_text){conn->flow->queue->data, conn->flow->queue->len};
    return ACCESS_FOUND;
}

/* --- on_close --------------------------------------------------------------------------------- */

/* A pending call of VALUE_CONN_CLOSED; in the arena of the exchange. */
struct closing {
    struct l4_close_hook hook; /* first */
    struct call call;
};

static void push_text(lua_State *L, struct slice text)
{
    if (text.ptr)
        lua_pushlstring(L, text.ptr, text.len);
    else
        lua_pushnil(L);
}

static int push_closed(struct call *call, lua_State *L)
{
    const struct l4_conn *conn = call->owner;
    script_push_value(call->script, L, VALUE_CONN_CLOSED);
    lua_pushnumber(L, (lua_Number)(uintptr_t)call->request);
    lua_pushnumber(L, call->request->generation);
    lua_pushstring(L, l4_reason_name(conn->reason));
    push_text(L, conn->why);
    lua_pushnumber(L, (lua_Number)conn->client_bytes);
    lua_pushnumber(L, (lua_Number)conn->peer_bytes);
    lua_pushnumber(L, (lua_Number)conn->duration_us / 1e6);
    push_text(L, conn->peer);
    if (!conn->of_datagrams)
        return 8;
    lua_pushnumber(L, (lua_Number)conn->client_packets);
    lua_pushnumber(L, (lua_Number)conn->peer_packets);
    return 10;
}

static bool begin_closing(struct l4_conn *conn)
{
    struct closing *closing = (struct closing *)conn->on_close;
    struct exchange *exchange = conn->exchange;
    closing->call = (struct call){
        .script = exchange->script,
        .request = &exchange->request,
        .deadline = clock_now_ms() + ON_CLOSE_MS,
        .push = push_closed,
        .push_allocates = true,
        .owner = conn,
    };
    call_run(&closing->call, false);
    return closing->call.state == CALL_WAITING;
}

static void finish_closing(struct l4_conn *conn, bool may_wait)
{
    struct closing *closing = (struct closing *)conn->on_close;
    if (may_wait)
        call_run(&closing->call, true);
    else
        call_abandon(&closing->call);
}

int script_conn_watch(intptr_t address, uint32_t generation)
{
    struct l4_conn *conn = live(address, generation);
    if (!conn)
        return ACCESS_OVER;
    if (conn->on_close)
        return ACCESS_FOUND;
    struct closing *closing = arena_zalloc(&conn->exchange->arena, sizeof(*closing));
    if (!closing)
        return ACCESS_MEMORY;
    closing->hook = (struct l4_close_hook){.begin = begin_closing, .finish = finish_closing};
    conn->on_close = &closing->hook;
    return ACCESS_FOUND;
}

/* --- splice ----------------------------------------------------------------------------------- */

static uint32_t timeout_at(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? L4_TIMEOUT_UNSET : (uint32_t)lua_tonumber(L, index);
}

void conn_take_splice(struct call *call, lua_State *L)
{
    bool own = call->next && (uintptr_t)lua_tonumber(L, 2) == (uintptr_t)call->request;
    const struct site_upstream *entry = lua_touserdata(L, 3);
    call->upstream = own ? entry->upstream : NULL;
    call->splice =
        (struct l4_splice){timeout_at(L, 4), timeout_at(L, 5), (uint32_t)lua_tonumber(L, 6)};
}

void conn_perform_splice(struct call *call)
{
    call->response = NULL;
    call->result = -EINVAL;
    if (!call->upstream)
        return;
    call->response = l4_splice(call->upstream, call->request, &call->splice);
    call->result = call->response ? 0 : -ECANCELED;
}
