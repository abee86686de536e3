/* What Lua can wait for. See struct verb in run.h. */
#include "script/conn.h"
#include "script/forward.h"
#include "script/peek.h"
#include "script/run.h"

#include "base/clock.h"
#include "http/body.h"
#include "http/exchange.h"
#include "io/wait.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* --- next: the rest of the chain ------------------------------------------------------------- */

/* Whose chain goes on, or whose body comes back, is said by address: -EINVAL for that of a request
 * that is not the running call's own. */
static void take_request(struct call *call, lua_State *L)
{
    bool own = call->request && (uintptr_t)lua_tonumber(L, 2) == (uintptr_t)call->request;
    call->result = own ? 0 : -EINVAL;
}

static void perform_next(struct call *call)
{
    call->response = NULL;
    if (!call->next)
        call->result = -EINVAL;
    if (call->result < 0)
        return;
    call->response = ml_next_call(call->next, call->request);
    call->result = call->response ? 0 : -ECANCELED;
}

/* The response's address, or nil and an error. */
static int give_response(struct call *call, lua_State *L)
{
    if (call->response) {
        lua_pushnumber(L, (lua_Number)(uintptr_t)call->response);
        return 1;
    }
    lua_pushnil(L);
    lua_pushinteger(L, call->result);
    return 2;
}

/* --- sleep ----------------------------------------------------------------------------------- */

enum { SLEEP_MAX_S = 1000000000 }; /* 30 years and more are for ever */

static void take_seconds(struct call *call, lua_State *L)
{
    call->seconds = lua_tonumber(L, 2);
}

/* Rounded up, and from the present, not from the loop's time: nobody shall wake early. */
static int64_t end_of_sleep_ms(double seconds)
{
    if (seconds > SLEEP_MAX_S)
        return DEADLINE_NEVER;
    return (clock_now_us() + (int64_t)(seconds * 1e6) + 999) / 1000;
}

static void perform_sleep(struct call *call)
{
    struct io *io = call->request ? call->request->exchange->io : call->script->io;
    int64_t until = end_of_sleep_ms(call->seconds);
    if (until <= call->deadline) {
        call->result = wait_sleep(io, until);
        return;
    }
    call->result = wait_sleep(io, call->deadline);
    if (call->result == 0)
        call->result = -ETIMEDOUT;
}

static int give_result(struct call *call, lua_State *L)
{
    lua_pushinteger(L, call->result);
    return 1;
}

/* --- bodies ---------------------------------------------------------------------------------- */

/* A body is read in the coroutine of its own request, or of the one that has asked for it: NULL for
 * another's. That request lives: its handle was looked at just before. */
static void take_body(struct call *call, lua_State *L)
{
    const struct request *request = (const struct request *)(uintptr_t)lua_tonumber(L, 4);
    bool own =
        call->request && (request == call->request || request->exchange->asked_by == call->request);
    call->body = own ? (struct body *)(uintptr_t)lua_tonumber(L, 2) : NULL;
    call->bytes_max = (uint64_t)lua_tonumber(L, 3);
}

static void perform_read(struct call *call)
{
    call->bytes = (struct slice){NULL, 0};
    if (!call->body) {
        call->result = -EINVAL;
        return;
    }
    call->result = body_read(call->body, &call->bytes, 1, call->deadline);
}

/* The bytes; nil at the end; nil and an error. */
static int give_bytes(struct call *call, lua_State *L)
{
    if (call->result > 0) {
        lua_pushlstring(L, call->bytes.ptr, call->bytes.len);
        return 1;
    }
    lua_pushnil(L);
    if (call->result == 0)
        return 1;
    lua_pushinteger(L, call->result);
    return 2;
}

/* Bytes gathered in an arena. */
struct gathered {
    struct arena *arena;
    char *data;
    size_t len;
    size_t capacity;
};

static int gather(struct gathered *gathered, struct slice piece)
{
    if (!piece.len)
        return 0;
    size_t needed = gathered->len + piece.len;
    if (needed > gathered->capacity) {
        size_t capacity = needed < 4096 ? 4096 : needed * 2;
        char *grown = arena_alloc(gathered->arena, capacity);
        if (!grown)
            return -ENOMEM;
        if (gathered->len)
            memcpy(grown, gathered->data, gathered->len);
        gathered->data = grown;
        gathered->capacity = capacity;
    }
    assert(gathered->data); /* a capacity comes with bytes */
    memcpy(gathered->data + gathered->len, piece.ptr, piece.len);
    gathered->len = needed;
    return 0;
}

static int gather_body(struct call *call, struct gathered *gathered, int64_t deadline)
{
    struct body *body = call->body;
    if (body->length > 0 && (uint64_t)body->length > call->bytes_max)
        return -EMSGSIZE;
    for (;;) {
        struct slice pieces[BODY_SLICES_MAX];
        int count = body_read(body, pieces, BODY_SLICES_MAX, deadline);
        if (count <= 0)
            return count;
        for (int i = 0; i < count; i++) {
            if (gathered->len + pieces[i].len > call->bytes_max)
                return -EMSGSIZE;
            if (gather(gathered, pieces[i]) != 0)
                return -ENOMEM;
        }
    }
}

int call_buffer_body(struct call *call, int64_t deadline)
{
    struct gathered gathered = {.arena = call->request->arena};
    int result = gather_body(call, &gathered, deadline);
    if (result < 0)
        return result;
    call->bytes = slice_of(gathered.data, gathered.len);
    body_release(call->body);
    body_init_bytes(call->body, call->bytes);
    return 1;
}

static void perform_buffer(struct call *call)
{
    call->bytes = (struct slice){NULL, 0};
    call->result = call->body ? call_buffer_body(call, call->deadline) : -EINVAL;
}

/* The request's body back from an upload that goes on behind an early response. */
static void perform_reclaim(struct call *call)
{
    if (call->result == 0)
        exchange_reclaim_body(call->request->exchange);
}

const struct verb script_verbs[] = {
    {"next", take_request, perform_next, give_response, false},
    {"sleep", take_seconds, perform_sleep, give_result, false},
    {"read", take_body, perform_read, give_bytes, true},
    {"buffer", take_body, perform_buffer, give_bytes, true},
    {"reclaim", take_request, perform_reclaim, give_result, false},
    {"forward", forward_take, forward_perform, give_response, false},
    {"splice", conn_take_splice, conn_perform_splice, give_response, false},
    {"peek", peek_take, peek_perform, peek_give, true},
    {"client_hello", hello_take, hello_perform, hello_give, true},
    {"detect", hello_take, detect_perform, detect_give, true},
};
const unsigned script_verb_count = sizeof(script_verbs) / sizeof(script_verbs[0]);
