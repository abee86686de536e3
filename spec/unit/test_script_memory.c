/* Allocations of Lua fail, one after the other, while a site serves: a request may be answered with
 * an error, and nothing else may happen. */
#include "support/loop.h"

#include "http/server.h"
#include "proxy/site.h"
#include "script/script.h"
#include "script/state.h"

#include <errno.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ANSWER_MAX = 65536,
    UNHURT = 3, /* requests in a row that no failure has hit: they allocate no more than that */
    NTH_MAX = 20000,
    NODE_BYTES = 24,
};

static const char site_text[] =
    "local ml = require 'monolake'\n"
    "local function own(fn) return coroutine.wrap(fn) end\n"
    "ml.on_error(function(err, req) return ml.text('oops: ' .. tostring(err), { status = 500 }) end)\n"
    "ml.listen { address = '127.0.0.1:0', chain = { function(req, next)\n"
    "   req.headers['x-seen'] = 'by ' .. req.path\n"
    "   local res = next(req)\n"
    "   res.headers['x-path'] = req.path:upper()\n"
    "   return res\n"
    "end, ml.router {\n"
    "   ['/text'] = ml.text 'text',\n"
    "   ['/layer'] = function(req) return ml.text('layer ' .. req.headers['host']) end,\n"
    "   ['/table'] = function(req)\n"
    "      local t = {}\n"
    "      for i = 1, 20 do t[i] = { i .. 'x' } end\n"
    "      return ml.json(t)\n"
    "   end,\n"
    "   ['/echo'] = function(req) return ml.text(req:body() .. '!') end,\n"
    "   ['/chunks'] = function(req)\n"
    "      local all = {}\n"
    "      for chunk in req:chunks() do all[#all + 1] = chunk end\n"
    "      return ml.text(table.concat(all))\n"
    "   end,\n"
    "   ['/iterator'] = function(req)\n"
    "      local i = 0\n"
    "      return ml.response { body = function() i = i + 1; return i < 4 and 'piece ' .. i or nil end }\n"
    "   end,\n"
    "   ['/map'] = { function(req, next)\n"
    "      local res = next(req)\n"
    "      res:map(function(chunk) return chunk:upper() .. '' end, { overlap = 3 })\n"
    "      return res\n"
    "   end, ml.text 'to be mapped' },\n"
    "   ['/sleep'] = function() ml.sleep(0.001) return ml.text('slept' .. '') end,\n"
    "   ['/coroutine'] = function()\n"
    "      local text = own(function() ml.sleep(0) return 'woke' end)()\n"
    "      return ml.text(text)\n"
    "   end,\n"
    "   ['/error'] = function(req) error('on purpose ' .. req.path) end,\n"
    "   ['/object'] = function(req) error { req.path } end,\n"
    "   ['/yield'] = function() coroutine.yield(1) end,\n"
    "   ['/caught'] = function(req)\n"
    "      local ok, err = pcall(function() error { req.path } end)\n"
    "      return ml.text(tostring(ok) .. err[1])\n"
    "   end,\n"
    "} } }\n"
    "ml.listen { address = '127.0.0.1:0', l4 = function(conn, next)\n"
    "   conn:on_close(function(_, info) ml.log.debug(info.reason .. tostring(info.seconds)) end)\n"
    "   local bytes, why = conn:peek(4, { timeout = 1 })\n"
    "   local hello, what = conn:client_hello()\n"
    "   if bytes and not hello then conn:close() end\n"
    "end }\n";

struct server {
    struct service service; /* first */
    struct site *site;
    struct chain *chain;
    struct http_server http;
};

static struct site *site;
static struct server servers[2];
static int client;
static char answer[ANSWER_MAX + 1];

/* --- An allocator that fails -------------------------------------------------------------------
 */

enum how { ONCE, FROM_THEN_ON, ALARM };

static lua_Alloc allocate; /* the state's */
static void *arena;
static enum how how;
static long to_go = -1; /* allocations until it fails; -1: it does not */
static bool has_failed;

/* So many bytes has the hash of a table: a power of 2 of nodes. */
static bool like_hash(size_t size)
{
    size_t nodes = size / NODE_BYTES;
    return size % NODE_BYTES == 0 && (nodes & (nodes - 1)) == 0;
}

/* What LuaJIT itself does not survive does not fail, see script/memory.h: it writes beyond a stack
 * that cannot grow, and loses entries of a table that has an array already but gets no hash. */
static void *fail_sometimes(void *arg, void *block, size_t old_size, size_t new_size)
{
    (void)arg;
    if (!block && new_size && !like_hash(new_size) && to_go >= 0 && to_go-- == 0) {
        has_failed = true;
        if (how == FROM_THEN_ON)
            to_go = 0;
        if (how != ALARM)
            return NULL;
        struct script_memory *memory = &site->script->memory;
        memory->max = memory->used + new_size;
        memory->alarm = 0;
    }
    return allocate(arena, block, old_size, new_size);
}

/* --- A site in this process --------------------------------------------------------------------
 */

static struct response *handle(struct service *service, struct request *request)
{
    return chain_run(((struct server *)service)->chain, request);
}

static void retain(struct service *service)
{
    site_retain(((struct server *)service)->site);
}

static void release(struct service *service)
{
    site_release(((struct server *)service)->site);
}

static void load_site(void)
{
    char path[] = "/tmp/site-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, site_text, strlen(site_text)), strlen(site_text));
    close(fd);
    char *error = NULL;
    struct script_options options = {.io = loop, .generation = 1};
    site = script_load_site(path, &options, &error);
    unlink(path);
    if (!site) {
        fail_msg("%s", error);
        return;
    }
    assert_int_equal(site->listener_count, 2);
}

static int setup(void **state)
{
    loop_setup(state);
    load_site();
    for (unsigned i = 0; i < 2; i++) {
        servers[i] =
            (struct server){.service = {.handle = handle, .retain = retain, .release = release},
                            .site = site,
                            .chain = &site->listeners[i]->chain};
        http_server_init(&servers[i].http, loop);
        http_server_set_service(&servers[i].http, &servers[i].service, &site->listeners[i]->config);
    }
    lua_State *L = site->script->L;
    allocate = lua_getallocf(L, &arena);
    lua_setallocf(L, fail_sometimes, NULL);
    client = -1;
    return 0;
}

static void hang_up(void)
{
    if (client >= 0)
        close(client);
    client = -1;
}

static int teardown(void **state)
{
    hang_up();
    for (unsigned i = 0; i < 2; i++) {
        turn_until(servers[i].http.connection_count == 0);
        http_server_fini(&servers[i].http);
    }
    loop_turn_idle();
    assert_int_equal(site->users, 1);
    site_release(site);
    return loop_teardown(state);
}

static void be_client_of(struct server *server)
{
    int fds[2];
    open_tcp_pair(fds);
    client = fds[0];
    http_server_accept(&server->http, fds[1]);
}

/* --- Requests ----------------------------------------------------------------------------------
 */

/* Is the whole answer there? */
static bool complete(size_t len, bool ended)
{
    const char *head_end = strstr(answer, "\r\n\r\n");
    const char *length = strcasestr(answer, "content-length: ");
    if (ended || !head_end)
        return ended;
    if (length && length < head_end)
        return len >= (size_t)(head_end + 4 - answer) + strtoul(length + 16, NULL, 10);
    return strstr(head_end, "\r\n0\r\n\r\n") != NULL;
}

static bool receive(size_t *len, bool *ended)
{
    ssize_t got = read(client, answer + *len, ANSWER_MAX - *len);
    *ended = got == 0 || (got < 0 && errno != EAGAIN);
    *len += got > 0 ? (size_t)got : 0;
    answer[*len] = '\0';
    return complete(*len, *ended);
}

/* Sends, and reads an answer, or until the connection is closed: then hangs up. */
static void exchange(const char *text)
{
    size_t len = 0;
    bool ended = false;
    answer[0] = '\0';
    assert_int_equal(write(client, text, strlen(text)), strlen(text));
    turn_often_until(1, receive(&len, &ended));
    if (ended || strcasestr(answer, "connection: close"))
        hang_up();
}

static void ask(const char *method, const char *path, const char *body)
{
    char text[512];
    if (client < 0)
        be_client_of(&servers[0]);
    snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s",
             method, path, strlen(body), body);
    exchange(text);
}

static const struct {
    const char *method;
    const char *path;
    const char *body;
    int status; /* without failures */
} requests[] = {
    {"GET", "/text", "", 200},     {"GET", "/layer", "", 200},      {"GET", "/table", "", 200},
    {"POST", "/echo", "abc", 200}, {"POST", "/chunks", "xyz", 200}, {"GET", "/iterator", "", 200},
    {"GET", "/map", "", 200},      {"GET", "/sleep", "", 200},      {"GET", "/coroutine", "", 200},
    {"GET", "/error", "", 500},    {"GET", "/object", "", 500},     {"GET", "/yield", "", 500},
    {"GET", "/caught", "", 200},
};

static int status_of_answer(void)
{
    int status = 0;
    return sscanf(answer, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static void fail_nth(long nth)
{
    has_failed = false;
    to_go = nth;
}

static void fail_no_more(void)
{
    to_go = -1;
    if (how == ALARM)
        memory_set_max(&site->script->memory, SCRIPT_MEMORY_MAX_BYTES);
}

static void sweep_request(unsigned i)
{
    unsigned unhurt = 0;
    for (long nth = 0; unhurt < UNHURT; nth++) {
        assert_true(nth < NTH_MAX);
        fail_nth(nth);
        ask(requests[i].method, requests[i].path, requests[i].body);
        fail_no_more();
        unhurt = has_failed ? 0 : unhurt + 1;
        int status = status_of_answer();
        if (status != requests[i].status && (status != 500 || !has_failed))
            fail_msg("%s, allocation %ld: answered \"%s\"", requests[i].path, nth, answer);
    }
    ask(requests[i].method, requests[i].path, requests[i].body);
    assert_int_equal(status_of_answer(), requests[i].status);
}

static void sweep_requests(enum how this_how)
{
    how = this_how;
    for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        sweep_request(i);
}

/* LuaJIT itself may crash when an allocation fails in compiled code: see script/memory.h. */
static void interpret(void)
{
    luaJIT_setmode(site->script->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
}

static void one_fails(void **state)
{
    (void)state;
    interpret();
    sweep_requests(ONCE);
}

static void all_fail_from_then_on(void **state)
{
    (void)state;
    interpret();
    sweep_requests(FROM_THEN_ON);
}

static void the_alarm_sounds(void **state)
{
    (void)state;
    sweep_requests(ALARM);
}

/* --- Layer 4 -----------------------------------------------------------------------------------
 */

static void sweep_connections(enum how this_how)
{
    unsigned unhurt = 0;
    how = this_how;
    for (long nth = 0; unhurt < UNHURT; nth++) {
        assert_true(nth < NTH_MAX);
        be_client_of(&servers[1]);
        fail_nth(nth);
        exchange("some bytes");
        turn_often_until(1, servers[1].http.connection_count == 0);
        fail_no_more();
        unhurt = has_failed ? 0 : unhurt + 1;
        assert_int_equal(client, -1);
    }
}

static void of_a_connection_one_fails(void **state)
{
    (void)state;
    interpret();
    sweep_connections(ONCE);
}

static void of_a_connection_all_fail_from_then_on(void **state)
{
    (void)state;
    interpret();
    sweep_connections(FROM_THEN_ON);
}

static void of_a_connection_the_alarm_sounds(void **state)
{
    (void)state;
    sweep_connections(ALARM);
}

static void garbage_goes_in_calm_times(void **state)
{
    (void)state;
    struct script_memory *memory = &site->script->memory;
    lua_State *L = site->script->L;
    lua_setallocf(L, allocate, arena);
    assert_int_equal(luaL_dostring(L, "kept = {} for i = 1, 1e5 do kept[i] = { i } end"), 0);
    size_t before = memory->used;
    assert_int_equal(luaL_dostring(L, "kept = nil"), 0);
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;
    do {
        assert_true(clock_now_ms() < until_ms);
        script_trim(site);
    } while (memory->tidy_cycles);
    assert_true(memory->used < before / 2);
    size_t rest = memory->used;
    script_trim(site); /* finds nothing */
    assert_int_equal(memory->tidy_cycles, 0);
    assert_int_equal(memory->used, rest);
}

#define SWEEP_ON(index, name, test)                                                                \
    {                                                                                              \
#test " on " name, test, setup, teardown, &loop_kinds[index]                               \
    }
#define SWEEP_ON_BOTH(test) SWEEP_ON(0, "io_uring", test), SWEEP_ON(1, "epoll", test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SWEEP_ON_BOTH(one_fails),
        SWEEP_ON_BOTH(all_fail_from_then_on),
        SWEEP_ON_BOTH(the_alarm_sounds),
        SWEEP_ON_BOTH(of_a_connection_one_fails),
        SWEEP_ON_BOTH(of_a_connection_all_fail_from_then_on),
        SWEEP_ON_BOTH(of_a_connection_the_alarm_sounds),
        SWEEP_ON_BOTH(garbage_goes_in_calm_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
