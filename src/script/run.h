/*
 * The call/yield loop: runs Lua functions for requests. A call's Lua runs on the main stack in a
 * pooled Lua coroutine; when it waits, it yields a verb, which the exchange's C coroutine performs.
 *
 *   C coroutine                          main stack
 *   call_run ───coro_on_main───▶ lua_resume(function) ─┬─ returns or fails ─▶ done
 *      ▲                                               └─ yields a verb
 *      │                                                      │ take: arguments into the call
 *   perform (waits) ◀─────────────────────────────────────────┘
 *      └───────coro_on_main───▶ give: results; lua_resume ─▶ ...
 */
#ifndef SCRIPT_RUN_H
#define SCRIPT_RUN_H

#include "l4/tcp_proxy.h"
#include "proxy/chain.h"
#include "script/state.h"

#include <stdbool.h>
#include <stdint.h>

struct call;
struct l4_hello;

/* Something that Lua waits for: coroutine.yield(verb, ...). */
struct verb {
    const char *name;
    /* Reads the arguments from the stack, which stay there until the verb is done. Main stack. */
    void (*take)(struct call *call, lua_State *L);
    /* Waits; on the C coroutine. Leaves its outcome in the call. */
    void (*perform)(struct call *call);
    /* Pushes what the yield returns, and says how many values that is. Main stack. */
    int (*give)(struct call *call, lua_State *L);
    bool allocates; /* give does: then it runs on another stack than the coroutine's, protected */
};

/* Every verb, for Lua: a light userdata for each. */
extern const struct verb script_verbs[];
extern const unsigned script_verb_count;

enum call_state { CALL_RUNNING, CALL_WAITING, CALL_RETURNED, CALL_FAILED };

struct call {
    struct script *script;
    struct request *request; /* NULL: of none; then only sleeping is possible */
    struct ml_next *next;    /* what the verb "next" runs, or NULL */
    int64_t deadline;        /* of its waits */
    struct thread *thread;   /* NULL until it runs and after it ended */
    enum call_state state;
    const struct verb *verb;  /* CALL_WAITING: the pending one */
    uint32_t cancelled_waits; /* a script that will not end is given up */

    /* Arguments and outcome of the pending verb. */
    double seconds;
    struct body *body;
    struct headers *message_headers;
    uint64_t bytes_max;
    struct response *response;
    struct slice bytes;
    struct upstream *upstream;
    struct request *target; /* what is forwarded: the call's own request, or one that it has made */
    struct l4_splice splice;
    struct l4_hello *hello; /* owned while it is read */
    int64_t milliseconds;
    int result; /* >= 0 or a negative errno */

    /* Before the first resume: pushes the function and its arguments, returns their number. */
    int (*push)(struct call *call, lua_State *L);
    bool push_allocates; /* as with verbs */
    /* After the function has failed, once: pushes what takes its place, and its arguments, returns
     * their number; the failed coroutine has the error on top. Protected. NULL: the call fails. */
    int (*recover)(struct call *call, lua_State *L, lua_State *failed);
    /* After the function has returned: reads its results, and allocates nothing in Lua. NULL: they
     * are not wanted. */
    void (*finish)(struct call *call, lua_State *L);
    void *owner; /* for push, recover and finish */
};

/* Runs the call to its end, or, if it may not wait, to its first wait: then the state is
 * CALL_WAITING and a later call_run goes on. A failure was logged. */
void call_run(struct call *call, bool may_wait);

/* Reads the whole of call->body, up to bytes_max, and puts the bytes in its place, so that whoever
 * comes later can read it too. Returns 1 or a negative errno. May suspend. */
int call_buffer_body(struct call *call, int64_t deadline);

/* For `recover`, which is protected: pushes the error of the failed coroutine, then its traceback.
 */
void script_push_error(lua_State *L, lua_State *failed);

/* Gives up a call that is not at its end. */
void call_abandon(struct call *call);

#endif
