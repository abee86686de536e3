#include "script/interrupt.h"

#include <luajit.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "base/log.h"

enum { LEVELS_MAX = 16 }; /* of functions that are told of */

static lua_State *interrupted; /* NULL: none */
static lua_State *aside;       /* is being loaded, but not now; NULL: none */
static const struct request *interrupted_request;
static uint32_t allowed_ms;
static volatile sig_atomic_t armed;

void interrupt_push_place(lua_State *L)
{
    lua_Debug function;
    for (int level = 0; lua_getstack(L, level, &function); level++) {
        lua_getinfo(L, "Sl", &function);
        if (function.currentline > 0) {
            lua_pushfstring(L, "%s:%d: ", function.short_src, function.currentline);
            return;
        }
    }
    lua_pushliteral(L, "");
}

static void raise_error(lua_State *L, lua_Debug *activation)
{
    (void)activation;
    lua_sethook(L, NULL, 0, 0); /* the error's own handling is not to be disturbed */
    interrupt_push_place(L);
    lua_pushfstring(L, "the script did not finish within %d ms: does it loop?", (int)allowed_ms);
    lua_concat(L, 2);
    lua_error(L);
}

/* lua_sethook is what may be called in the middle of anything that Lua does. */
static void arm(int signal_number)
{
    (void)signal_number;
    lua_State *L = interrupted ? interrupted : aside;
    if (!L)
        return;
    armed = interrupted != NULL;
    lua_sethook(L, raise_error, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

void interrupt_watch(lua_State *L, const struct request *request)
{
    lua_State *before = interrupted;
    interrupted = L;
    interrupted_request = request;
    if (!armed)
        return;
    armed = false;
    if (before)
        lua_sethook(before, NULL, 0, 0); /* it has come to its end by itself */
}

void interrupt_put_aside(void)
{
    aside = interrupted;
    interrupted = NULL;
    armed = false; /* its hook stays, if it has been set */
}

void interrupt_take_up(void)
{
    interrupted = aside;
    aside = NULL;
}

const struct request *interrupt_request(void)
{
    return interrupted_request;
}

bool interrupt_running(uint32_t time_max_ms)
{
    allowed_ms = time_max_ms;
    arm(0);
    return interrupted;
}

bool interrupt_is_armed(void)
{
    return interrupted && armed;
}

/* Neither formats nor allocates in Lua. */
void interrupt_log_place(void)
{
    lua_Debug function;
    for (int level = 0; level < LEVELS_MAX && lua_getstack(interrupted, level, &function);
         level++) {
        lua_getinfo(interrupted, "Sl", &function);
        if (function.currentline > 0)
            log_error("in Lua at %s:%d", function.short_src, function.currentline);
        else if (strcmp(function.what, "C") == 0)
            log_error("in Lua at a function in C");
    }
}

static void set_timer(uint32_t time_ms)
{
    struct itimerval timer = {
        .it_value = {.tv_sec = time_ms / 1000, .tv_usec = time_ms % 1000 * 1000},
    };
    setitimer(ITIMER_REAL, &timer, NULL);
}

void interrupt_begin(lua_State *L, uint32_t time_max_ms)
{
    interrupted = L;
    allowed_ms = time_max_ms;
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    struct sigaction action = {.sa_handler = arm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    set_timer(time_max_ms);
}

void interrupt_end(void)
{
    if (!interrupted)
        return;
    set_timer(0);
    lua_sethook(interrupted, NULL, 0, 0);
    interrupted = NULL;
}
