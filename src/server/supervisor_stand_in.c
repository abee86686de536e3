/*
 * Who dies leaves clients in the queues of its sockets, and gets more until it serves again, which
 * a crash loop delays. Meanwhile another worker stands in for it (stand_in.h).
 */
#include "server/supervisor_internal.h"

static bool serves(const struct worker_slot *slot)
{
    return slot->pid && slot->generation && !slot->untold;
}

/* Returns the next one that serves, or `count`. */
static unsigned next_that_serves(const struct supervisor *supervisor, unsigned index)
{
    for (unsigned i = 1; i < supervisor->count; i++) {
        unsigned other = (index + i) % supervisor->count;
        if (serves(&supervisor->workers[other]))
            return other;
    }
    return supervisor->count;
}

/* UDP's flows are bound to their worker; sockets that all share need nobody. */
static bool has_queue_of_its_own(const struct bound *bound)
{
    return !bound->datagrams && !bound->lent && bound->address.any.sa_family != AF_UNIX;
}

static void lend(struct supervisor *supervisor, unsigned index, bool fresh)
{
    unsigned helper = supervisor->workers[index].helper - 1;
    for (unsigned i = 0; i < supervisor->bounds.count; i++) {
        const struct bound *bound = supervisor->bounds.items[i];
        if (bound->fresh == fresh && has_queue_of_its_own(bound))
            worker_tell(supervisor, helper, CONTROL_STAND_IN, index, bound->key, bound->fds[index]);
    }
}

void workers_stand_in(struct supervisor *supervisor)
{
    if (!supervisor->ready || supervisor->stopping)
        return;
    for (unsigned i = 0; i < supervisor->count; i++) {
        struct worker_slot *slot = &supervisor->workers[i];
        if (serves(slot) && slot->helper) {
            worker_tell(supervisor, slot->helper - 1, CONTROL_STAND_BACK, i, NULL, -1);
            slot->helper = 0;
        } else if (!serves(slot) && !slot->helper) {
            unsigned helper = next_that_serves(supervisor, i);
            if (helper == supervisor->count)
                continue;
            slot->helper = helper + 1;
            lend(supervisor, i, false);
        }
    }
}

void workers_stand_in_fresh(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].helper)
            lend(supervisor, i, true);
}

void worker_helps_no_more(struct supervisor *supervisor, unsigned index)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].helper == index + 1)
            supervisor->workers[i].helper = 0;
}
