#include "script/run.h"

#include "base/log.h"
#include "coro/coro.h"
#include "script/interrupt.h"

#include <assert.h>

enum {
    CANCELLED_WAITS_MAX = 100,  /* of a script that goes on waiting for a client that is gone */
    FAILURES_LOGGED_PER_S = 10, /* tracebacks of layers */
    STATUS_CLIENT_GONE = 499,   /* of errors.cancelled in lua/ */
};

static bool is_verb(const struct verb *verb)
{
    return verb >= script_verbs && verb < script_verbs + script_verb_count;
}

static void end(struct call *call, enum call_state state)
{
    call->state = state;
    if (state == CALL_RETURNED)
        script_return_thread(call->script, call->thread);
    else
        script_drop_thread(call->script, call->thread);
    call->thread = NULL;
}

/* Is the error that of a request whose client is gone (errors.cancelled)? Nobody did wrong. */
static bool is_cancellation(lua_State *L)
{
    if (!lua_istable(L, -1))
        return false;
    lua_pushliteral(L, "status");
    lua_rawget(L, -2);
    bool cancelled = lua_tointeger(L, -1) == STATUS_CLIENT_GONE;
    lua_pop(L, 1);
    return cancelled;
}

/* What is wrong, of an error that is a text or one of errors.failure in lua/; NULL: neither. */
static const char *error_text(lua_State *L)
{
    if (lua_istable(L, -1)) {
        lua_pushliteral(L, "message");
        lua_rawget(L, -2);
        lua_replace(L, -2);
    }
    return lua_tostring(L, -1);
}

static void log_failure(struct call *call, lua_State *L)
{
    uint32_t suppressed = 0;
    if (is_cancellation(L) ||
        !log_limit_pass(&call->script->errors, FAILURES_LOGGED_PER_S, &suppressed))
        return;
    luaL_traceback(call->script->L, L, error_text(L), 0);
    log_error("%s", lua_tostring(call->script->L, -1));
    lua_pop(call->script->L, 1);
}

void script_push_error(lua_State *L, lua_State *failed)
{
    lua_pushvalue(failed, -1);
    lua_xmove(failed, L, 1);
    luaL_traceback(L, failed, NULL, 0);
}

static void resume(struct call *call, int count);

/* The call's function has failed: something else answers in its place, or the call fails. */
static void failed(struct call *call, lua_State *L)
{
    struct thread *thread = call->thread;
    struct thread *other =
        call->recover && !is_cancellation(L) ? script_take_thread(call->script) : NULL;
    if (!other) {
        log_failure(call, L);
        end(call, CALL_FAILED);
        return;
    }
    int count = call->recover(call, other->L, L);
    call->recover = NULL;
    script_drop_thread(call->script, thread);
    call->thread = other;
    resume(call, count);
}

static void resume(struct call *call, int count)
{
    lua_State *L = call->thread->L;
    interrupt_watch(L, call->request);
    int status = lua_resume(L, count);
    interrupt_watch(NULL, NULL);
    if (status == 0) {
        if (call->finish)
            call->finish(call, L);
        end(call, CALL_RETURNED);
    } else if (status == LUA_YIELD && is_verb(lua_touserdata(L, 1))) {
        call->verb = lua_touserdata(L, 1);
        call->verb->take(call, L);
        call->state = CALL_WAITING;
    } else {
        if (status == LUA_YIELD)
            lua_pushliteral(L, "attempt to yield outside a coroutine of the script's own");
        failed(call, L);
    }
}

static void begin_on_main(void *arg)
{
    struct call *call = arg;
    call->thread = script_take_thread(call->script);
    if (!call->thread) {
        call->state = CALL_FAILED;
        return;
    }
    resume(call, call->push(call, call->thread->L));
}

static void go_on_on_main(void *arg)
{
    struct call *call = arg;
    lua_State *L = call->thread->L;
    lua_settop(L, 0);
    resume(call, call->verb->give(call, L));
}

static void abandon_on_main(void *arg)
{
    end(arg, CALL_FAILED);
}

void call_abandon(struct call *call)
{
    if (call->thread)
        coro_on_main(abandon_on_main, call);
}

void call_run(struct call *call, bool may_wait)
{
    if (call->state == CALL_RUNNING)
        coro_on_main(begin_on_main, call);
    while (call->state == CALL_WAITING && may_wait) {
        if (coro_cancelled() && ++call->cancelled_waits > CANCELLED_WAITS_MAX) {
            log_error("a layer goes on waiting although its request was cancelled: given up");
            call_abandon(call);
            return;
        }
        call->verb->perform(call);
        coro_on_main(go_on_on_main, call);
    }
}
