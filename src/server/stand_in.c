#include "server/stand_in.h"

#include <unistd.h>

#include "base/log.h"

enum {
    LOOK_EVERY_MS = 20,
    LOOK_AT_FIRST_MS = 3000, /* more than the kernel takes to clear away a dead process's ring */
};

/* Serves as the one of ours with that key does. False: there is none, or it does not serve. */
static bool follow(struct acceptor *acceptor)
{
    const struct acceptor *own = acceptors_find(acceptor->all, acceptor->key);
    if (!own || !own->server.service || acceptor->server.draining)
        return false;
    http_server_set_service(&acceptor->server, own->server.service, &own->server.config);
    return true;
}

static void look_again(struct stand_ins *stand_ins)
{
    struct io *io = stand_ins->acceptors->io;
    timer_start(io_timers(io), &stand_ins->look, io_now_ms(io) + LOOK_EVERY_MS);
}

static bool is_looked_at(const struct stand_ins *stand_ins, const struct acceptor *acceptor)
{
    bool at_first = io_now_ms(acceptor->all->io) < stand_ins->look_at_ours_until_ms;
    return acceptor->fd >= 0 && (acceptor->stands_in_for >= 0 || at_first);
}

static void look(struct timer *timer)
{
    struct stand_ins *stand_ins = timer->owner;
    bool any = false;
    list_for_each(node, &stand_ins->acceptors->list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        if (!is_looked_at(stand_ins, acceptor))
            continue;
        if (acceptor->server.service)
            acceptor_take_queued(acceptor);
        any = true;
    }
    if (any)
        look_again(stand_ins);
}

void stand_ins_init(struct stand_ins *stand_ins, struct acceptors *acceptors)
{
    stand_ins->acceptors = acceptors;
    timer_init(&stand_ins->look, look, stand_ins);
    stand_ins->look_at_ours_until_ms = io_now_ms(acceptors->io) + LOOK_AT_FIRST_MS;
    look_again(stand_ins);
}

void stand_in_begin(struct stand_ins *stand_ins, unsigned worker, const char *key, int fd)
{
    if (fd < 0) {
        log_warn("cannot stand in for worker %u on %s: no descriptor is left (raise the limit of "
                 "open files: ulimit -n, LimitNOFILE=)",
                 worker, key);
        return;
    }
    struct acceptor *acceptor = acceptors_add(stand_ins->acceptors, key, fd);
    if (!acceptor)
        return;
    acceptor->stands_in_for = (int)worker;
    if (!follow(acceptor)) {
        acceptor_stop(acceptor);
        return;
    }
    acceptor_take_queued(acceptor);
    look_again(stand_ins);
}

void stand_in_end(struct stand_ins *stand_ins, unsigned worker)
{
    list_for_each(node, &stand_ins->acceptors->list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        if (acceptor->stands_in_for == (int)worker)
            acceptor_stop(acceptor);
    }
}

void stand_ins_follow(struct stand_ins *stand_ins)
{
    list_for_each(node, &stand_ins->acceptors->list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        const struct acceptor *own = acceptors_find(stand_ins->acceptors, acceptor->key);
        if (acceptor->stands_in_for >= 0 && own && own->wanted)
            acceptor->wanted = follow(acceptor);
    }
}
