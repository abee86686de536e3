#include "http/idle.h"

#include "base/counters.h"
#include "base/log.h"
#include "http/connection.h"

enum { IDLE_MIN_MS = 1000 }; /* the next request of a client that is at it may be on its way */

static struct list idle = {&idle, &idle}; /* longest idle first */

void idle_begin(struct connection *connection)
{
    list_remove(&connection->idle_link);
    list_push_back(&idle, &connection->idle_link);
    connection->idle_since_ms = io_now_ms(connection->listener->io);
}

void idle_end(struct connection *connection)
{
    list_remove(&connection->idle_link);
}

static void tell(unsigned shed)
{
    static struct log_limit limit;
    uint32_t suppressed;
    counters_add(COUNTER_SHED_CLIENTS, shed);
    if (shed && log_limit_pass(&limit, 1, &suppressed))
        log_info("%u idle connections of clients are closed early: others wait for their place",
                 shed);
}

unsigned idle_shed(const struct http_server *listener, unsigned count)
{
    unsigned shed = 0;
    for (struct list *node = idle.next, *next; node != &idle && shed < count; node = next) {
        struct connection *connection = container_of(node, struct connection, idle_link);
        next = node->next;
        if (io_now_ms(connection->listener->io) - connection->idle_since_ms < IDLE_MIN_MS)
            break; /* so are those behind it */
        if (listener && connection->listener != listener)
            continue;
        idle_end(connection);
        timer_stop(&connection->idle);
        connection->idle.fire(&connection->idle);
        shed++;
    }
    tell(shed);
    return shed;
}
