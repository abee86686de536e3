#include "script/layer.h"

#include "coro/coro.h"
#include "http/exchange.h"
#include "script/run.h"

/* --- Lua ------------------------------------------------------------------------------------- */

void script_forget_handle(void *arg)
{
    struct request *request = arg;
    struct script *script = request->exchange->script;
    lua_State *L = script->L;
    script_push_value(script, L, VALUE_HANDLES);
    lua_pushnumber(L, (lua_Number)(uintptr_t)request);
    lua_rawget(L, -2);
    if (!lua_isnil(L, -1)) {
        lua_pushnumber(L, (lua_Number)(uintptr_t)request);
        lua_pushnil(L);
        lua_rawset(L, -4);
    }
    lua_pop(L, 2);
}

static int push_run(struct call *call, lua_State *L)
{
    const struct lua_run *run = call->owner;
    lua_rawgeti(L, LUA_REGISTRYINDEX, run->ref);
    lua_pushnumber(L, (lua_Number)(uintptr_t)call->request);
    lua_pushnumber(L, call->request->generation);
    return 2;
}

static int push_recover(struct call *call, lua_State *L, lua_State *failed)
{
    const struct lua_run *run = call->owner;
    lua_rawgeti(L, LUA_REGISTRYINDEX, run->recover_ref);
    lua_pushnumber(L, (lua_Number)(uintptr_t)call->request);
    lua_pushnumber(L, call->request->generation);
    script_push_error(L, failed);
    return 4;
}

static void take_response(struct call *call, lua_State *L)
{
    call->response = (struct response *)(uintptr_t)lua_tonumber(L, 1);
}

static ml_response *lua_handle(void *self, ml_request *request, ml_next *next)
{
    struct lua_run *run = self;
    struct exchange *exchange = request->exchange;
    if (!exchange->script) {
        if (arena_defer(request->arena, script_forget_handle, request) != 0)
            return NULL;
        exchange->script = run->script;
    }
    struct call call = {
        .script = run->script,
        .request = request,
        .next = next,
        .deadline = exchange->total_deadline,
        .push = push_run,
        .recover = push_recover,
        .finish = take_response,
        .owner = run,
    };
    call_run(&call, true);
    if (call.state == CALL_RETURNED)
        return call.response || !run->of_connections ? call.response
                                                     : response_create(request, 200);
    if (coro_cancelled())
        return NULL;
    return response_create_error(request, 500, RESPONSE_LAYER_FAILED, SLICE("a layer failed"));
}

static void lua_destroy(void *self)
{
    struct lua_run *run = self;
    luaL_unref(run->script->L, LUA_REGISTRYINDEX, run->ref);
    luaL_unref(run->script->L, LUA_REGISTRYINDEX, run->recover_ref);
}

const ml_layer lua_layer = {
    .abi = ML_ABI,
    .name = "lua",
    .destroy = lua_destroy,
    .handle = lua_handle,
};

/* --- A fixed response ------------------------------------------------------------------------ */

static ml_response *fixed_handle(void *self, ml_request *request, ml_next *next)
{
    const struct fixed_response *fixed = self;
    (void)next;
    struct response *response = response_create(request, fixed->status);
    if (!response)
        return NULL;
    /* Names and values live as long as the site, and the site outlives the request. */
    uint32_t at = 0;
    for (struct header *header; (header = headers_next(&fixed->headers, &at));)
        if (headers_add_id(&response->headers, header->id, header->name, header->value) != 0)
            return NULL;
    if (fixed->body.len)
        body_init_bytes(&response->body, fixed->body);
    return response;
}

const ml_layer fixed_layer = {
    .abi = ML_ABI,
    .name = "response",
    .handle = fixed_handle,
};
