#include "http/exchange.h"

#include "base/clock.h"
#include "base/counters.h"
#include "coro/coro.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SLAB_BYTES = 64 << 10, /* a multiple of any page */
    SLAB_EXCHANGES = SLAB_BYTES / sizeof(struct exchange),
    DRIED_MAX = 64, /* slabs at once: each takes a system call */
};

/* Exchanges that lie side by side. The addresses are never given back, as a stale handle may read
 * the generation of any exchange that ever was; the memory is, and then that generation reads 0. */
struct exchange_slab {
    struct list link;
    struct exchange *exchanges;
    unsigned active; /* of these */
    bool used;       /* one has begun since the last trim */
};

static struct list slabs = {&slabs, &slabs};
static struct list dry_slabs = {&dry_slabs, &dry_slabs}; /* hold no memory */
static uint32_t last_generation;
static struct list idle = {&idle, &idle};
static struct list active = {&active, &active};
static uint32_t active_count;
static uint32_t tunnel_count; /* of those */
static uint64_t next_id = 1;

static struct exchange_slab *make_slab(void)
{
    struct exchange_slab *slab = calloc(1, sizeof(*slab));
    struct exchange *exchanges = slab ? aligned_alloc(SLAB_BYTES, SLAB_BYTES) : NULL;
    if (!exchanges) {
        free(slab);
        return NULL;
    }
    slab->exchanges = memset(exchanges, 0, SLAB_BYTES);
    return slab;
}

static struct exchange_slab *take_dry_slab(void)
{
    struct exchange_slab *slab = container_of(dry_slabs.next, struct exchange_slab, link);
    list_remove(&slab->link);
    return slab;
}

static int drop_interim(struct exchange *exchange, uint16_t status, const struct headers *headers)
{
    (void)exchange;
    (void)status;
    (void)headers;
    return 0;
}

const struct exchange_codec exchange_codec_silent = {.send_interim = drop_interim};

static bool add_slab(void)
{
    struct exchange_slab *slab = list_empty(&dry_slabs) ? make_slab() : take_dry_slab();
    if (!slab)
        return false;
    for (unsigned i = 0; i < SLAB_EXCHANGES; i++) {
        slab->exchanges[i].slab = slab;
        arena_init(&slab->exchanges[i].arena);
        list_push_back(&idle, &slab->exchanges[i].link);
    }
    list_push_back(&slabs, &slab->link);
    return true;
}

static void dry(struct exchange_slab *slab)
{
    for (unsigned i = 0; i < SLAB_EXCHANGES; i++)
        list_remove(&slab->exchanges[i].link);
    madvise(slab->exchanges, SLAB_BYTES, MADV_DONTNEED);
    list_remove(&slab->link);
    list_push_back(&dry_slabs, &slab->link);
}

bool exchange_trim(void)
{
    unsigned dried = 0;
    for (struct list *node = slabs.next, *next; node != &slabs; node = next) {
        struct exchange_slab *slab = container_of(node, struct exchange_slab, link);
        next = node->next;
        if (!slab->active && !slab->used && dried++ < DRIED_MAX)
            dry(slab);
        slab->used = slab->active;
    }
    return dried > 0;
}

/* Of one that was never given before, so that no stale handle has it; 0 is nobody's. */
static uint32_t new_generation(void)
{
    if (++last_generation == 0)
        last_generation++;
    return last_generation;
}

struct exchange *exchange_begin(struct io *io)
{
    if (list_empty(&idle) && !add_slab())
        return NULL;
    struct exchange *exchange = container_of(idle.next, struct exchange, link);
    list_remove(&exchange->link);
    list_push_back(&active, &exchange->link);
    exchange->slab->active++;
    exchange->slab->used = true;
    active_count++;
    counters_add(COUNTER_REQUESTS_ACTIVE, 1);

    struct arena arena = exchange->arena;
    struct list link = exchange->link;
    struct exchange_slab *slab = exchange->slab;
    memset(&exchange->request, 0, offsetof(struct request, params));
    memset((char *)exchange + offsetof(struct exchange, arena), 0,
           sizeof(*exchange) - offsetof(struct exchange, arena));
    exchange->arena = arena;
    exchange->link = link;
    exchange->slab = slab;
    exchange->io = io;
    exchange->started_us = clock_now_us();
    exchange->total_deadline = DEADLINE_NEVER;

    struct request *request = &exchange->request;
    request->generation = new_generation();
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
    exchange->request.generation = 0;
    arena_fini(&exchange->arena);
    if (exchange->service)
        exchange->service->release(exchange->service);
    exchange->service = NULL;
    list_remove(&exchange->link);
    exchange->slab->active--;
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
