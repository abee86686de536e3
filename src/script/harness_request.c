/*
 * Requests from Lua tables, run as jobs in coroutines of their own.
 *
 * A request's table: method ("GET"), target ("/path?query"), host, scheme ("http"), version (11),
 * headers = { { name, value }, ... }, body (a string), chunked (its length is not declared),
 * remote ("127.0.0.1:40000"); for fetch also address ("127.0.0.1:80", "unix:/path") and timeout in
 * seconds (30).
 */
#include "script/harness.h"

#include "coro/coro.h"
#include "io/io.h"
#include "proxy/chain.h"
#include "proxy/site.h"
#include "proxy/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { INTERIM_MAX = 16, BODY_MAX_BYTES = 1 << 30, CANCEL_MS = 5000 };

/* A request from a table and its response. */
struct job {
    struct exchange *exchange; /* until it has ended */
    struct coro *coro;
    const struct chain *chain;
    struct chain own_chain; /* of fetch: one step, the upstream */
    struct chain_step own_step;
    struct upstream *upstream; /* of fetch; owned */
    struct site *site;         /* retained while it runs, or NULL */
    struct io *io;
    struct address remote;
    bool done;
    bool abandoned; /* freed when it ends: nobody waits */
    int failed;     /* negative errno: there is no complete response */

    /* The response; copies in the job's own arena. */
    struct arena arena;
    uint16_t status;
    struct slice error;
    struct headers headers;
    struct headers trailers;
    char *body; /* malloc'ed */
    size_t body_len;
    size_t body_capacity;
    uint16_t interim[INTERIM_MAX];
    unsigned interim_count;
};

/* --- Running ---------------------------------------------------------------------------------- */

static int send_interim(struct exchange *exchange, uint16_t status, const struct headers *headers)
{
    struct job *job = exchange->connection;
    (void)headers;
    if (status == 100)
        exchange->request.expects_continue = false;
    if (job->interim_count < INTERIM_MAX)
        job->interim[job->interim_count++] = status;
    return 0;
}

static const struct exchange_codec job_codec = {.send_interim = send_interim};

static int keep_bytes(struct job *job, struct slice piece)
{
    if (job->body_len + piece.len > BODY_MAX_BYTES)
        return -EMSGSIZE;
    if (job->body_len + piece.len > job->body_capacity) {
        size_t capacity = (job->body_len + piece.len) * 2;
        char *grown = realloc(job->body, capacity);
        if (!grown)
            return -ENOMEM;
        job->body = grown;
        job->body_capacity = capacity;
    }
    if (piece.len)
        memcpy(job->body + job->body_len, piece.ptr, piece.len);
    job->body_len += piece.len;
    return 0;
}

static int read_response_body(struct job *job, struct response *response)
{
    const struct request *request = response->request;
    if (http_response_bodyless(request->method, response->status))
        return 0;
    for (;;) {
        struct slice piece;
        int count = body_read(&response->body, &piece, 1, job->exchange->total_deadline);
        if (count <= 0)
            return count;
        int result = keep_bytes(job, piece);
        if (result < 0)
            return result;
    }
}

static void copy_fields(struct job *job, struct headers *to, const struct headers *from)
{
    headers_init(to, &job->arena);
    uint32_t at = 0;
    for (const struct header *header; from->items && (header = headers_next(from, &at));)
        headers_add(to, arena_copy(&job->arena, header->name),
                    arena_copy(&job->arena, header->value));
}

static void keep_response(struct job *job, struct response *response)
{
    job->status = response->status;
    if (response->error != RESPONSE_OK)
        job->error = arena_copy(&job->arena, response->error_text);
    job->failed = read_response_body(job, response);
    copy_fields(job, &job->headers, &response->headers);
    copy_fields(job, &job->trailers, &response->trailers);
    body_release(&response->body);
}

static void free_job(struct job *job)
{
    if (job->upstream)
        upstream_release(job->upstream);
    if (job->site)
        site_release(job->site);
    arena_fini(&job->arena);
    free(job->body);
    free(job);
}

static void job_main(void *arg)
{
    struct job *job = arg;
    struct response *response = chain_run(job->chain, &job->exchange->request);
    if (response)
        keep_response(job, response);
    else
        job->failed = -ECANCELED;
    exchange_end(job->exchange);
    job->exchange = NULL;
    job->done = true;
    if (job->abandoned)
        free_job(job);
}

/* --- The request ------------------------------------------------------------------------------ */

/* The text of a field of the table at 2, copied to the request's arena; `otherwise` if there is
 * none. */
static struct slice field(lua_State *L, struct request *request, const char *name,
                          const char *otherwise)
{
    size_t len;
    lua_getfield(L, -1, name);
    const char *text = lua_tolstring(L, -1, &len);
    struct slice copy =
        arena_copy(request->arena, text ? slice_of(text, len) : slice_from_cstr(otherwise));
    lua_pop(L, 1);
    return text || otherwise ? copy : (struct slice){NULL, 0};
}

static struct slice item(lua_State *L, struct request *request, int index)
{
    size_t len;
    lua_rawgeti(L, -1, index);
    const char *text = lua_tolstring(L, -1, &len);
    struct slice copy = arena_copy(request->arena, slice_of(text ? text : "", text ? len : 0));
    lua_pop(L, 1);
    return copy;
}

static void read_headers(lua_State *L, struct request *request)
{
    lua_getfield(L, -1, "headers");
    int count = lua_istable(L, -1) ? (int)lua_objlen(L, -1) : 0;
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        if (lua_istable(L, -1))
            headers_add(&request->headers, item(L, request, 1), item(L, request, 2));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_target(lua_State *L, struct request *request)
{
    struct slice target = field(L, request, "target", "/");
    const char *mark = memchr(target.ptr, '?', target.len);
    request->path = target;
    if (!mark)
        return;
    request->path.len = (size_t)(mark - target.ptr);
    request->query = slice_of(mark + 1, target.len - request->path.len - 1);
}

/* A body whose length is not known beforehand: its bytes are the source's. */
static int read_undeclared(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct slice *bytes = body->source;
    (void)max;
    (void)deadline;
    body->ended = true;
    if (!bytes->len)
        return 0;
    *out = *bytes;
    bytes->len = 0;
    return 1;
}

static void release_undeclared(struct body *body)
{
    (void)body; /* the bytes are the arena's */
}

static const struct body_ops undeclared_ops = {.read = read_undeclared,
                                               .release = release_undeclared};

static void read_body(lua_State *L, struct request *request)
{
    struct slice bytes = field(L, request, "body", NULL);
    if (!bytes.ptr)
        return;
    lua_getfield(L, -1, "chunked");
    struct slice *source = arena_alloc(request->arena, sizeof(*source));
    if (lua_toboolean(L, -1) && source) {
        *source = bytes;
        request->body = (struct body){.ops = &undeclared_ops, .source = source, .length = -1};
    } else {
        body_init_bytes(&request->body, bytes);
    }
    lua_pop(L, 1);
}

/* Reads the table on top of the stack. */
static void read_request(lua_State *L, struct job *job)
{
    struct request *request = &job->exchange->request;
    request->method_name = field(L, request, "method", "GET");
    request->method = http_method_of(request->method_name);
    request->scheme = field(L, request, "scheme", "http");
    request->version = HTTP_1_1;
    lua_getfield(L, -1, "version");
    if (lua_isnumber(L, -1))
        request->version = (enum http_version)lua_tointeger(L, -1);
    lua_pop(L, 1);
    request->keep_alive = true;
    read_target(L, request);
    read_headers(L, request);
    request->authority = headers_get_id(&request->headers, HEADER_HOST);
    if (!request->authority.ptr) {
        request->authority = field(L, request, "host", "localhost");
        headers_add_id(&request->headers, HEADER_HOST, SLICE("Host"), request->authority);
    }
    request->expects_continue =
        headers_has_token(&request->headers, HEADER_EXPECT, SLICE("100-continue"));
    read_body(L, request);
    const char *why;
    address_parse(field(L, request, "remote", "127.0.0.1:40000"), &job->remote, &why);
    request->remote = &job->remote;
}

static double number_field(lua_State *L, const char *name, double otherwise)
{
    lua_getfield(L, -1, name);
    double number = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : otherwise;
    lua_pop(L, 1);
    return number;
}

/* --- Jobs in Lua ------------------------------------------------------------------------------ */

static struct job *job_of(lua_State *L)
{
    struct job **box = luaL_checkudata(L, 1, "monolake.job");
    return *box;
}

static int job_wait(lua_State *L)
{
    struct job *job = job_of(L);
    int wait_ms = (int)(luaL_optnumber(L, 2, 30) * 1000);
    lua_pushboolean(L, harness_turn_until(job->io, &job->done, wait_ms));
    return 1;
}

static int job_cancel(lua_State *L)
{
    struct job *job = job_of(L);
    if (!job->done)
        coro_cancel(job->coro);
    return 0;
}

static void push_fields(lua_State *L, const struct headers *headers, const char *name)
{
    uint32_t at = 0;
    int count = 0;
    lua_newtable(L);
    for (const struct header *header; headers->items && (header = headers_next(headers, &at));) {
        lua_createtable(L, 2, 0);
        lua_pushlstring(L, header->name.ptr, header->name.len);
        lua_rawseti(L, -2, 1);
        lua_pushlstring(L, header->value.ptr, header->value.len);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, ++count);
    }
    lua_setfield(L, -2, name);
}

static void push_interim(lua_State *L, const struct job *job)
{
    lua_newtable(L);
    for (unsigned i = 0; i < job->interim_count; i++) {
        lua_pushinteger(L, job->interim[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "interim");
}

static int job_result(lua_State *L)
{
    struct job *job = job_of(L);
    if (!job->done || job->failed) {
        lua_pushnil(L);
        lua_pushstring(L, job->done ? strerror(-job->failed) : "it has not ended");
        return 2;
    }
    if (job->upstream && job->error.ptr) { /* the client's own answer: the server gave none */
        lua_pushnil(L);
        lua_pushlstring(L, job->error.ptr, job->error.len);
        return 2;
    }
    lua_newtable(L);
    lua_pushinteger(L, job->status);
    lua_setfield(L, -2, "status");
    lua_pushlstring(L, job->body ? job->body : "", job->body_len);
    lua_setfield(L, -2, "body");
    push_fields(L, &job->headers, "headers");
    push_fields(L, &job->trailers, "trailers");
    push_interim(L, job);
    if (job->error.ptr) {
        lua_pushlstring(L, job->error.ptr, job->error.len);
        lua_setfield(L, -2, "error");
    }
    return 1;
}

static int collect_job(lua_State *L)
{
    struct job **box = lua_touserdata(L, 1);
    struct job *job = *box;
    *box = NULL;
    if (!job)
        return 0;
    if (job->done) {
        free_job(job);
    } else {
        job->abandoned = true;
        coro_cancel(job->coro);
    }
    return 0;
}

static int job_request(lua_State *L)
{
    const struct job *job = *(struct job **)luaL_checkudata(L, 1, "monolake.job");
    if (!job->exchange)
        return luaL_error(L, "the request has ended");
    lua_pushnumber(L, (lua_Number)(uintptr_t)&job->exchange->request);
    lua_pushnumber(L, job->exchange->request.generation);
    return 2;
}

static const luaL_Reg job_methods[] = {
    {"request", job_request}, {"wait", job_wait}, {"cancel", job_cancel},
    {"result", job_result},   {NULL, NULL},
};

/* Makes a job of the request's table at `index` and pushes it. */
static struct job *make_job(lua_State *L, int index)
{
    luaL_checktype(L, index, LUA_TTABLE);
    struct io *io = harness_io(L);
    struct job **box = lua_newuserdata(L, sizeof(*box));
    *box = NULL;
    harness_set_metatable(L, "monolake.job", job_methods, collect_job);
    struct job *job = calloc(1, sizeof(*job));
    struct exchange *exchange = job ? exchange_begin(io) : NULL;
    if (!exchange) {
        free(job);
        luaL_error(L, "out of memory");
        return NULL;
    }
    arena_init(&job->arena);
    job->io = io;
    job->exchange = exchange;
    exchange->codec = &job_codec;
    exchange->connection = job;
    lua_pushvalue(L, index);
    read_request(L, job);
    double timeout = number_field(L, "timeout", 30);
    exchange->total_deadline = io_now_ms(io) + (int64_t)(timeout * 1000);
    lua_pop(L, 1);
    *box = job;
    return job;
}

static void begin(lua_State *L, struct job *job)
{
    job->coro = coro_start(job_main, job);
    job->exchange->coro = job->coro;
    if (!job->coro)
        luaL_error(L, "out of memory");
}

/* core.start(site, chain, request) */
static int start(lua_State *L)
{
    struct site *site = harness_site(L, 1);
    const struct chain *chain = lua_touserdata(L, 2);
    luaL_argcheck(L, chain, 2, "expected a chain");
    struct job *job = make_job(L, 3);
    job->chain = chain;
    job->site = site;
    site_retain(site);
    begin(L, job);
    return 1;
}

static struct upstream *open_origin(lua_State *L, struct job *job)
{
    const char *error = "no address";
    struct upstream_config config;
    upstream_config_init(&config);
    lua_getfield(L, 1, "address");
    const char *address = luaL_checkstring(L, -1);
    config.peers = &address;
    config.peer_count = 1;
    config.retries = 0;
    struct upstream *upstream = upstream_open(job->io, &config, &job->arena, &error);
    if (!upstream)
        luaL_error(L, "fetch: %s", error);
    lua_pop(L, 1);
    return upstream;
}

/* core.fetch(request) */
static int fetch(lua_State *L)
{
    struct job *job = make_job(L, 1);
    job->upstream = open_origin(L, job);
    job->own_step = (struct chain_step){.layer = &upstream_layer, .self = job->upstream};
    job->own_chain = (struct chain){.steps = &job->own_step, .count = 1};
    job->chain = &job->own_chain;
    begin(L, job);
    return 1;
}

const luaL_Reg harness_request_functions[] = {
    {"start", start},
    {"fetch", fetch},
    {NULL, NULL},
};
