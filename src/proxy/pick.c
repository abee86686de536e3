#include "proxy/pick.h"

#include <errno.h>

#include "coro/coro.h"
#include "io/wait.h"

/* A place in the queue for a connection; on the waiter's stack. */
struct room_wait {
    struct list link;
    struct coro *coro;
};

/* Upstreams that somebody waits for; there are several with the same peers behind a reload. */
static struct list waited_for = {&waited_for, &waited_for};

static bool has_peer(const struct upstream *upstream, const struct peer *peer)
{
    for (unsigned i = 0; i < upstream->balancer.count; i++)
        if (upstream->balancer.peers[i].peer == peer)
            return true;
    return false;
}

static void wake_first(struct upstream *upstream)
{
    if (list_empty(&upstream->waiters))
        return;
    struct room_wait *wait = container_of(upstream->waiters.next, struct room_wait, link);
    list_remove(&wait->link);
    coro_wake(wait->coro, 0);
}

void pick_room_freed(const struct peer *peer)
{
    list_for_each(node, &waited_for)
    {
        struct upstream *upstream = container_of(node, struct upstream, waited_for);
        if (has_peer(upstream, peer))
            wake_first(upstream);
    }
}

static void join_queue(struct upstream *upstream, struct room_wait *wait)
{
    wait->coro = coro_self();
    if (!upstream->waiter_count++)
        list_push_back(&waited_for, &upstream->waited_for);
}

static void leave_queue(struct upstream *upstream, struct room_wait *wait)
{
    list_remove(&wait->link);
    if (wait->coro && !--upstream->waiter_count)
        list_remove(&upstream->waited_for);
}

/* Every peer has connections_max open connections in use: waits for one to become free, keeping its
 * place in the queue from call to call. Not every place that becomes free is heard of (a peer that
 * was down is up again), so it is looked for from time to time. */
static int wait_for_room(struct upstream *upstream, struct room_wait *wait, int64_t deadline)
{
    bool new_here = !wait->coro;
    if (new_here && upstream->waiter_count >= UPSTREAM_WAITERS_MAX)
        return -EAGAIN;
    if (new_here) {
        join_queue(upstream, wait);
        list_push_back(&upstream->waiters, &wait->link);
    } else if (list_empty(&wait->link)) { /* it was woken, but somebody else was faster */
        list_push_front(&upstream->waiters, &wait->link);
    }
    int64_t look_at = io_now_ms(upstream->io) + PICK_ROOM_LOOK_MS;
    int result = wait_wake(upstream->io, deadline < look_at ? deadline : look_at);
    return result == -ETIMEDOUT && look_at < deadline ? 0 : result;
}

void upstream_await_room(struct upstream *upstream)
{
    struct room_wait wait;
    list_init(&wait.link);
    join_queue(upstream, &wait);
    list_push_front(&upstream->waiters, &wait.link);
    wait_wake(upstream->io, io_now_ms(upstream->io) + PICK_ROOM_LOOK_MS);
    leave_queue(upstream, &wait);
}

int upstream_pick(struct upstream *upstream, const struct request *request,
                  const struct tried *tried, int64_t deadline)
{
    struct room_wait wait = {.coro = NULL};
    list_init(&wait.link);
    for (;;) {
        bool full = false;
        int index = balance_pick(&upstream->balancer, request, tried,
                                 upstream->config.connections_max, &full);
        int result = index < 0 && full ? wait_for_room(upstream, &wait, deadline) : index;
        if (index >= 0 || !full || result < 0) {
            leave_queue(upstream, &wait);
            return result;
        }
    }
}

bool pick_remember(struct upstream *upstream, struct tried *tried,
                   const struct upstream_peer *entry, struct arena *arena)
{
    struct balancer *balancer = &upstream->balancer;
    if (!tried->words)
        tried->words = arena_zalloc(arena, (balancer->count + 63) / 64 * 8);
    if (!tried->words)
        return false;
    size_t index = (size_t)(entry - balancer->peers);
    tried->words[index / 64] |= UINT64_C(1) << (index % 64);
    return true;
}
