#include "script/body.h"

#include "base/clock.h"
#include "http/exchange.h"
#include "io/wait.h"
#include "script/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    NESTING_MAX = 32,    /* functions around one body: each takes some of the stack */
    EMPTY_IN_A_ROW = 64, /* pieces, before others have their turn */
    EMPTY_PAUSE_MS = 1,
};

struct script_body {
    struct request *request;
    unsigned nesting;  /* how many functions feed this one, itself included */
    bool running;      /* a piece is being made: its function must not read or replace the body */
    struct body inner; /* what the function is fed with; empty for an iterator */
    bool map;
    bool last;          /* nothing follows what the function is working on */
    bool done;          /* nothing follows what was read last */
    bool failed;        /* the function did: the body must not look complete */
    int index;          /* of the function */
    struct slice piece; /* of inner, for the function */
    char *chunk;        /* what it gave; owned, used again */
    size_t chunk_len;
    size_t chunk_capacity;
    struct call call; /* state CALL_WAITING between two reads: the function waits */
};

static int push_arguments(struct call *call, lua_State *L)
{
    struct script_body *self = call->owner;
    script_push_value(call->script, L, self->map ? VALUE_MAP_CHUNK : VALUE_NEXT_CHUNK);
    lua_pushnumber(L, (lua_Number)(uintptr_t)call->request);
    lua_pushnumber(L, call->request->generation);
    lua_pushinteger(L, self->index);
    if (!self->map)
        return 3;
    lua_pushlstring(L, self->piece.ptr ? self->piece.ptr : "", self->piece.len);
    lua_pushboolean(L, self->last);
    return 5;
}

/* Keeps the chunk: bytes of a body must stay until the next read. nil ends an iterator. */
static void keep_chunk(struct call *call, lua_State *L)
{
    struct script_body *self = call->owner;
    size_t len = 0;
    const char *bytes = lua_tolstring(L, 1, &len);
    self->chunk_len = 0;
    if (!bytes) {
        self->last = true;
        return;
    }
    if (len > self->chunk_capacity) {
        char *grown = realloc(self->chunk, len);
        if (!grown) {
            self->failed = true;
            return;
        }
        self->chunk = grown;
        self->chunk_capacity = len;
    }
    if (len)
        memcpy(self->chunk, bytes, len);
    self->chunk_len = len;
}

static void begin_call(struct script_body *self)
{
    struct request *request = self->request;
    self->call = (struct call){
        .script = request->exchange->script,
        .request = request,
        .deadline = request->exchange->total_deadline,
        .push = push_arguments,
        .push_allocates = self->map,
        .finish = keep_chunk,
        .owner = self,
    };
}

static int feed(struct script_body *self, int64_t deadline)
{
    self->piece = (struct slice){NULL, 0};
    if (!self->map)
        return 0;
    int count = body_read(&self->inner, &self->piece, 1, deadline);
    if (count < 0)
        return count;
    self->last = count == 0 || self->inner.ended;
    return 0;
}

static int make_chunk(struct script_body *self, int64_t deadline)
{
    if (self->call.state != CALL_WAITING) {
        int result = feed(self, deadline);
        if (result < 0)
            return result;
        begin_call(self);
    }
    call_run(&self->call, deadline != DEADLINE_NOW);
    if (self->call.state == CALL_WAITING)
        return -ETIMEDOUT;
    if (self->call.state == CALL_FAILED || self->failed) {
        self->failed = true;
        return -EIO;
    }
    self->done = self->last;
    return 0;
}

static int read_chunk(struct script_body *self, int64_t deadline)
{
    self->running = true;
    int result = make_chunk(self, deadline);
    self->running = false;
    return result;
}

/* A function may give nothing for ever: that is to hold up nobody else. */
static int pause_empty(struct script_body *self, int64_t deadline)
{
    struct io *io = self->request->exchange->io;
    return deadline == DEADLINE_NOW ? -ETIMEDOUT : wait_sleep(io, io_now_ms(io) + EMPTY_PAUSE_MS);
}

static int script_body_read(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct script_body *self = body->source;
    (void)max;
    if (self->running)
        return -EINVAL;
    if (self->failed)
        return -EIO;
    for (unsigned empty = 1; !self->done; empty++) {
        int result = empty % EMPTY_IN_A_ROW ? 0 : pause_empty(self, deadline);
        if (result == 0)
            result = read_chunk(self, deadline);
        if (result < 0)
            return result;
        if (self->chunk_len) {
            out[0] = slice_of(self->chunk, self->chunk_len);
            body->ended = self->done;
            return 1;
        }
    }
    body->ended = true;
    return 0;
}

/* Also run when the request ends, for a body that nobody read: harmless when done before. */
static void free_script_body(void *arg)
{
    struct script_body *self = arg;
    call_abandon(&self->call);
    body_release(&self->inner);
    free(self->chunk);
    self->chunk = NULL;
    self->chunk_capacity = 0;
}

static void script_body_release(struct body *body)
{
    free_script_body(body->source);
}

static const struct body_ops script_body_ops = {
    .read = script_body_read,
    .release = script_body_release,
};

static void release_taken(void *arg)
{
    body_release(arg);
}

/* The body as one of ours, or NULL. */
static struct script_body *script_body_of(const struct body *body)
{
    return body->ops == &script_body_ops ? body->source : NULL;
}

bool script_body_running(const struct body *body)
{
    const struct script_body *self = script_body_of(body);
    return self && self->running;
}

struct body *script_body_take(struct request *request, struct body *body)
{
    struct body *taken = arena_alloc(request->arena, sizeof(*taken));
    if (!taken || arena_defer(request->arena, release_taken, taken) != 0)
        return NULL;
    *taken = *body;
    body_init_empty(body);
    return taken;
}

int script_body_attach(struct request *request, struct body *body, int index, bool map)
{
    const struct script_body *fed_by = map ? script_body_of(body) : NULL;
    unsigned nesting = fed_by ? fed_by->nesting + 1 : 1;
    if (nesting > NESTING_MAX)
        return -EINVAL;
    struct script_body *self = arena_zalloc(request->arena, sizeof(*self));
    if (!self || (!map && !script_body_take(request, body)) ||
        arena_defer(request->arena, free_script_body, self) != 0)
        return -ENOMEM;
    self->nesting = nesting;
    self->request = request;
    self->index = index;
    self->map = map;
    self->call.state = CALL_RETURNED;
    if (map)
        self->inner = *body;
    *body = (struct body){.ops = &script_body_ops, .source = self, .length = -1};
    return 0;
}
