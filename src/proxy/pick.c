#include "proxy/pick.h"

#include <errno.h>

#include "coro/coro.h"
#include "io/wait.h"

/* A place in the queue for a connection; on the waiter's stack. */
struct room_wait {
    struct list link;
    struct coro *coro;
};

void upstream_wake_waiter(struct upstream *upstream)
{
    if (list_empty(&upstream->waiters))
        return;
    struct room_wait *wait = container_of(upstream->waiters.next, struct room_wait, link);
    list_remove(&wait->link);
    coro_wake(wait->coro, 0);
}

/* Every peer has connections_max open connections in use: waits for one to become free, keeping its
 * place in the queue from call to call. Not every place that becomes free is heard of (a tunnel
 * ends, a connection is still closing), so it is looked for from time to time. */
static int wait_for_room(struct upstream *upstream, struct room_wait *wait, int64_t deadline)
{
    bool new_here = !wait->coro;
    if (new_here && upstream->waiter_count >= UPSTREAM_WAITERS_MAX)
        return -EAGAIN;
    if (new_here)
        upstream->waiter_count++;
    wait->coro = coro_self();
    if (new_here)
        list_push_back(&upstream->waiters, &wait->link);
    else if (list_empty(&wait->link)) /* it was woken, but somebody else was faster */
        list_push_front(&upstream->waiters, &wait->link);
    int64_t look_at = io_now_ms(upstream->io) + PICK_ROOM_LOOK_MS;
    int result = wait_wake(upstream->io, deadline < look_at ? deadline : look_at);
    return result == -ETIMEDOUT && look_at < deadline ? 0 : result;
}

static void leave_queue(struct upstream *upstream, struct room_wait *wait)
{
    list_remove(&wait->link);
    if (wait->coro)
        upstream->waiter_count--;
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
