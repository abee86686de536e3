#include "http/exchange.h"

#include "base/clock.h"
#include "base/counters.h"
#include "coro/coro.h"

#include <stdlib.h>
#include <string.h>

/* Slabs are never freed: a stale handle may read the generation of any exchange that ever was. */
enum { SLAB_EXCHANGES = 64 };

static struct list idle = {&idle, &idle};
static struct list active = {&active, &active};
static uint32_t active_count;
static uint32_t tunnel_count; /* of those */
static uint64_t next_id = 1;

static bool add_slab(void)
{
    struct exchange *slab = calloc(SLAB_EXCHANGES, sizeof(*slab));
    if (!slab)
        return false;
    for (unsigned i = 0; i < SLAB_EXCHANGES; i++) {
        slab[i].request.generation = 1;
        arena_init(&slab[i].arena);
        list_push_back(&idle, &slab[i].link);
    }
    return true;
}

struct exchange *exchange_begin(struct io *io)
{
    if (list_empty(&idle) && !add_slab())
        return NULL;
    struct exchange *exchange = container_of(idle.next, struct exchange, link);
    list_remove(&exchange->link);
    list_push_back(&active, &exchange->link);
    active_count++;
    counters_add(COUNTER_REQUESTS_ACTIVE, 1);

    struct arena arena = exchange->arena;
    struct list link = exchange->link;
    uint32_t generation = exchange->request.generation;
    memset(&exchange->request, 0, offsetof(struct request, params));
    memset((char *)exchange + offsetof(struct exchange, arena), 0,
           sizeof(*exchange) - offsetof(struct exchange, arena));
    exchange->arena = arena;
    exchange->link = link;
    exchange->io = io;
    exchange->started_us = clock_now_us();
    exchange->total_deadline = DEADLINE_NEVER;

    struct request *request = &exchange->request;
    request->generation = generation;
    request->id = next_id++;
    request->arena = &exchange->arena;
    request->exchange = exchange;
    headers_init(&request->headers, &exchange->arena);
    headers_init(&request->trailers, &exchange->arena);
    body_init_empty(&request->body);
    return exchange;
}

/* Of layer 4, and where no whole head came, there is none to count. */
static void count_response(const struct exchange *exchange)
{
    unsigned status_class = exchange->sent_status / 100;
    if (!exchange->service || (!exchange->request.version && !exchange->request.thrift))
        return;
    counters_add(COUNTER_RESPONSES_NONE + (status_class < 5 ? status_class : 5), 1);
}

void exchange_end(struct exchange *exchange)
{
    count_response(exchange);
    arena_run_defers(&exchange->arena); /* they may still use the request, and suspend */
    body_release(&exchange->request.body);
    exchange->request.generation++;
    arena_fini(&exchange->arena);
    if (exchange->service)
        exchange->service->release(exchange->service);
    exchange->service = NULL;
    list_remove(&exchange->link);
    active_count--;
    tunnel_count -= exchange->became_tunnel;
    counters_add(COUNTER_REQUESTS_ACTIVE, -1);
    list_push_front(&idle, &exchange->link);
}

void exchange_reclaim_body(struct exchange *exchange)
{
    void *user = exchange->body_user;
    exchange->body_user = NULL;
    if (user)
        exchange->end_body_use(user);
}

const struct exchange *exchange_running(void)
{
    const struct coro *coro = coro_self();
    for (struct list *node = active.next; coro && node != &active; node = node->next)
        if (container_of(node, struct exchange, link)->coro == coro)
            return container_of(node, struct exchange, link);
    return NULL;
}

void exchange_becomes_tunnel(struct exchange *exchange)
{
    tunnel_count += !exchange->became_tunnel;
    exchange->became_tunnel = true;
}

uint32_t exchange_active_count(void)
{
    return active_count - tunnel_count;
}
