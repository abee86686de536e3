#include "script/run.h"

#include "base/log.h"
#include "coro/coro.h"
#include "script/interrupt.h"

#include <assert.h>
#include <stdlib.h>

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
    free(call->hello);
    call->hello = NULL;
}

/* --- Values for a coroutine --------------------------------------------------------------------
 */

struct pushing {
    struct call *call;
    int (*push)(struct call *call, lua_State *L);
    lua_State *to;
    int count;
};

static void push_and_move(lua_State *L, void *arg)
{
    struct pushing *pushing = arg;
    int below = lua_gettop(L);
    pushing->count = pushing->push(pushing->call, L);
    lua_xmove(L, pushing->to, lua_gettop(L) - below);
}

/* Pushes onto the call's coroutine; returns how many values, or -1: memory is exhausted, and the
 * error is there instead. */
static int push_values(struct call *call, int (*push)(struct call *call, lua_State *L),
                       bool allocates)
{
    lua_State *L = call->thread->L;
    if (!allocates)
        return push(call, L);
    struct pushing pushing = {.call = call, .push = push, .to = L};
    if (script_try(call->script, push_and_move, &pushing))
        return pushing.count;
    lua_xmove(call->script->L, L, 1);
    return -1;
}

/* --- Failures ----------------------------------------------------------------------------------
 */

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

/* A call that has failed; its coroutine has the error on top. */
struct failure {
    struct call *call;
    lua_State *failed;
    bool cancelled;       /* by its client: nobody did wrong */
    struct thread *other; /* for what takes its place */
    int count;            /* of values for that */
};

static void push_error(lua_State *L, lua_State *failed)
{
    lua_pushvalue(failed, -1);
    lua_xmove(failed, L, 1);
}

static void look_at_error(lua_State *L, void *arg)
{
    struct failure *failure = arg;
    push_error(L, failure->failed);
    failure->cancelled = is_cancellation(L);
}

static void write_traceback(lua_State *L, void *arg)
{
    const struct failure *failure = arg;
    push_error(L, failure->failed);
    luaL_traceback(L, failure->failed, error_text(L), 0);
    log_error("%s", lua_tostring(L, -1));
}

static void push_recovery(lua_State *L, void *arg)
{
    struct failure *failure = arg;
    int below = lua_gettop(L);
    failure->count = failure->call->recover(failure->call, L, failure->failed);
    lua_xmove(L, failure->other->L, lua_gettop(L) - below);
}

/* As script_try, of which the error is not wanted. */
static bool try_quietly(struct failure *failure, void (*work)(lua_State *L, void *arg))
{
    struct script *script = failure->call->script;
    if (script_try(script, work, failure))
        return true;
    lua_pop(script->L, 1);
    return false;
}

static bool may_log(struct script *script)
{
    uint32_t suppressed = 0;
    return log_limit_pass(&script->errors, FAILURES_LOGGED_PER_S, &suppressed);
}

static void log_failure(struct failure *failure)
{
    if (failure->cancelled || !may_log(failure->call->script))
        return;
    if (!try_quietly(failure, write_traceback))
        log_error("a layer has failed, and there is not enough memory for its traceback");
}

void script_push_error(lua_State *L, lua_State *failed)
{
    push_error(L, failed);
    luaL_traceback(L, failed, NULL, 0);
}

static void resume(struct call *call, int count);

/* Has a coroutine of its own been made for what takes the failed one's place? */
static bool prepare_recovery(struct failure *failure)
{
    struct call *call = failure->call;
    if (!call->recover || failure->cancelled)
        return false;
    failure->other = script_take_thread(call->script);
    if (!failure->other)
        return false;
    if (try_quietly(failure, push_recovery))
        return true;
    script_drop_thread(call->script, failure->other);
    return false;
}

/* The call's function has failed: something else answers in its place, or the call fails. */
static void failed(struct call *call)
{
    struct failure failure = {.call = call, .failed = call->thread->L};
    if (!try_quietly(&failure, look_at_error) || !prepare_recovery(&failure)) {
        log_failure(&failure);
        end(call, CALL_FAILED);
        return;
    }
    call->recover = NULL;
    script_drop_thread(call->script, call->thread);
    call->thread = failure.other;
    resume(call, failure.count);
}

/* --- Steps -------------------------------------------------------------------------------------
 */

static int push_foreign_yield(struct call *call, lua_State *L)
{
    (void)call;
    lua_pushliteral(L, "attempt to yield outside a coroutine of the script's own");
    return 1;
}

/* A count below 0: what was to be pushed has failed. */
static void resume(struct call *call, int count)
{
    if (count < 0) {
        failed(call);
        return;
    }
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
            push_values(call, push_foreign_yield, true);
        script_mend_thread(call->script, L);
        failed(call);
    }
}

static void begin_on_main(void *arg)
{
    struct call *call = arg;
    call->thread = script_take_thread(call->script);
    if (call->thread) {
        resume(call, push_values(call, call->push, call->push_allocates));
    } else {
        call->state = CALL_FAILED;
        if (may_log(call->script))
            log_error("no memory for a coroutine: a layer could not be run");
    }
    memory_rest(&call->script->memory);
}

static void go_on_on_main(void *arg)
{
    struct call *call = arg;
    lua_settop(call->thread->L, 0);
    resume(call, push_values(call, call->verb->give, call->verb->allocates));
    memory_rest(&call->script->memory);
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
