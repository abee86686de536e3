#include "server/udp_listeners.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/listener.h"

#define each_listener(listener, listeners)                                                         \
    for (struct udp_listener *listener = of((listeners)->list.next), *next;                        \
         next = of((listener)->link.next), &(listener)->link != &(listeners)->list;                \
         (listener) = next)

static struct udp_listener *of(struct list *node)
{
    return container_of(node, struct udp_listener, link);
}

void udp_listeners_init(struct udp_listeners *listeners, struct io *io, const struct limits *limits)
{
    listeners->io = io;
    listeners->limits = *limits;
    list_init(&listeners->list);
}

bool udp_listeners_own(const char *key)
{
    return slice_starts_with(slice_from_cstr(key), listener_udp_prefix);
}

void udp_listeners_add(struct udp_listeners *listeners, const char *key, int fd)
{
    struct udp_listener *listener = calloc(1, sizeof(*listener));
    char *copy = strdup(key);
    if (!listener || !copy) {
        free(listener);
        free(copy);
        close(fd);
        log_error("no memory for listener %s", key);
        return;
    }
    listener->key = copy;
    udp_server_init(&listener->server, listeners->io, fd);
    admission_share(&listener->server.admission, &listeners->limits, copy);
    list_push_back(&listeners->list, &listener->link);
}

struct udp_listener *udp_listeners_find(struct udp_listeners *listeners, const char *key)
{
    each_listener(listener, listeners)
    {
        if (!listener->server.draining && strcmp(listener->key, key) == 0)
            return listener;
    }
    return NULL;
}

uint32_t udp_listeners_flows(const struct udp_listeners *listeners)
{
    uint32_t count = 0;
    each_listener(listener, listeners) count += listener->server.flow_count;
    return count;
}

void udp_listeners_drain_unwanted(struct udp_listeners *listeners, int64_t until_ms)
{
    each_listener(listener, listeners)
    {
        if (!listener->wanted && listener->server.service) /* else of a generation to come */
            udp_server_drain(&listener->server, until_ms);
        listener->wanted = false;
    }
}

void udp_listeners_drain(struct udp_listeners *listeners, int64_t until_ms)
{
    each_listener(listener, listeners) udp_server_drain(&listener->server, until_ms);
}

void udp_listeners_drop_unused(struct udp_listeners *listeners)
{
    each_listener(listener, listeners)
    {
        if (!listener->server.service)
            udp_server_abort(&listener->server);
    }
}

void udp_listeners_give_up(struct udp_listeners *listeners)
{
    each_listener(listener, listeners) udp_server_give_up(&listener->server);
}

void udp_listeners_abort(struct udp_listeners *listeners)
{
    each_listener(listener, listeners) udp_server_abort(&listener->server);
}

void udp_listeners_sweep(struct udp_listeners *listeners)
{
    each_listener(listener, listeners)
    {
        if (!udp_server_gone(&listener->server))
            continue;
        list_remove(&listener->link);
        udp_server_fini(&listener->server);
        free(listener->key);
        free(listener);
    }
}
