#include "script/forward.h"

#include <errno.h>

#include "http/exchange.h"
#include "io/io.h"
#include "proxy/site.h"
#include "proxy/upstream.h"
#include "script/layer.h"

/* --- The verb --------------------------------------------------------------------------------- */

void forward_take(struct call *call, lua_State *L)
{
    bool own = call->next && (uintptr_t)lua_tonumber(L, 2) == (uintptr_t)call->request;
    const struct site_upstream *entry = lua_touserdata(L, 3);
    call->upstream = own ? entry->upstream : NULL;
    call->target = (struct request *)(uintptr_t)lua_tonumber(L, 4);
    call->bytes_max = (uint64_t)lua_tonumber(L, 5);
}

/* Takes all of the body of a response that a layer has asked for: its connection is then free
 * again, whether the layer looks at the body or not. */
static struct response *take_whole(struct call *call, struct response *response)
{
    call->body = &response->body;
    int result = call_buffer_body(call, call->target->exchange->total_deadline);
    if (result > 0)
        return response;
    if (result == -ECANCELED)
        return NULL;
    if (result == -ETIMEDOUT)
        return response_create_error(call->target, 504, RESPONSE_TIMED_OUT,
                                     SLICE("the response's body did not arrive in time"));
    if (result == -EMSGSIZE)
        return response_create_error(call->target, 502, RESPONSE_BODY_TOO_LARGE,
                                     SLICE("the response's body is longer than \"max\""));
    return response_create_error(call->target, 502, RESPONSE_RESET,
                                 SLICE("the response's body broke off"));
}

void forward_perform(struct call *call)
{
    call->response = NULL;
    call->result = -EINVAL;
    if (!call->upstream)
        return;
    call->response = upstream_forward(call->upstream, call->target);
    if (call->response && call->target != call->request)
        call->response = take_whole(call, call->response);
    call->result = call->response ? 0 : -ECANCELED;
}

/* --- Requests of a layer's own ---------------------------------------------------------------- */

static void end_fetch(void *arg)
{
    exchange_end(arg);
}

/* An exchange that ends with the given one; NULL when memory is exhausted. */
static struct exchange *begin_within(struct exchange *outer)
{
    struct exchange *exchange = exchange_begin(outer->io);
    if (!exchange)
        return NULL;
    exchange_becomes_tunnel(exchange); /* its work is counted with that of the outer one */
    if (arena_defer(&exchange->arena, script_forget_handle, &exchange->request) == 0 &&
        arena_defer(&outer->arena, end_fetch, exchange) == 0)
        return exchange;
    exchange_end(exchange);
    return NULL;
}

static int64_t deadline_of(const struct exchange *outer, double timeout_ms)
{
    int64_t deadline = io_now_ms(outer->io) + (int64_t)timeout_ms;
    return timeout_ms > 0 && deadline < outer->total_deadline ? deadline : outer->total_deadline;
}

double script_fetch_begin(intptr_t address, uint32_t generation, double timeout_ms,
                          uint32_t *own_generation)
{
    struct request *from = (struct request *)address;
    if (from->generation != generation)
        return ACCESS_OVER;
    struct exchange *exchange = begin_within(from->exchange);
    if (!exchange)
        return ACCESS_MEMORY;
    exchange->codec = &exchange_codec_silent;
    exchange->coro = from->exchange->coro;
    exchange->script = from->exchange->script;
    exchange->asked_by = from;
    exchange->total_deadline = deadline_of(from->exchange, timeout_ms);

    struct request *request = &exchange->request;
    request->method = METHOD_GET;
    request->method_name = SLICE("GET");
    request->version = HTTP_1_1;
    request->keep_alive = true;
    request->path = SLICE("/");
    request->scheme = from->scheme;
    request->remote = from->remote;
    request->local = from->local;
    request->proxied = from->proxied;
    request->tls = from->tls;
    request->authority = from->authority;
    if (headers_add_id(&request->headers, HEADER_HOST, SLICE("Host"), from->authority) != 0)
        return ACCESS_MEMORY;
    *own_generation = request->generation;
    return (double)(uintptr_t)request;
}
