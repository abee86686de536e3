/* The Thrift connections of a peer: each taken by one call at a time, or shared by as many as the
 * upstream allows. */
#include "proxy/peer_internal.h"

#include <errno.h>
#include <sys/socket.h>

static bool idle(const struct thrift_client *client)
{
    return timer_armed(&client->idle);
}

static struct thrift_client *client_of(struct list *node)
{
    return container_of(node, struct thrift_client, link);
}

/* --- Idle ones -------------------------------------------------------------------------------- */

void peer_thrift_close_idle(struct peer *peer)
{
    for (struct list *node = peer->thrift.next, *next; node != &peer->thrift; node = next) {
        struct thrift_client *client = client_of(node);
        next = node->next;
        if (!client->held_count)
            thrift_client_close(client, false);
    }
}

static void idle_expired(struct timer *timer)
{
    thrift_client_close(timer->owner, false);
}

unsigned peer_thrift_idle_count(const struct peer *peer)
{
    unsigned count = 0;
    list_for_each(node, &peer->thrift) count += idle(client_of(node));
    return count;
}

void peer_thrift_shed(struct peer *peer)
{
    struct list *node = peer->thrift.prev; /* the longest idle one is the last of those that are */
    while (!idle(client_of(node)))
        node = node->prev;
    thrift_client_close(client_of(node), true);
}

/* It is kept, if there is a place for it. */
static void became_idle(struct thrift_client *client)
{
    struct peer *peer = client->owner;
    if (peer_orphaned(peer) || peer_thrift_idle_count(peer) >= peer->idle_max ||
        !thrift_client_has_room(client)) {
        thrift_client_end(client, -ECONNRESET, NULL);
        return;
    }
    list_remove(&client->link);
    list_push_front(&peer->thrift, &client->link);
    timer_init(&client->idle, idle_expired, client);
    timer_start(io_timers(peer->io), &client->idle, io_now_ms(peer->io) + peer->idle_timeout_ms);
}

/* --- Making them ------------------------------------------------------------------------------ */

static void client_closed(struct thrift_client *client)
{
    peer_connection_closed(client->owner);
}

struct thrift_opener {
    struct peer_opener opener; /* first */
    struct thrift_client_options options;
    struct thrift_client *client;
};

static int open_thrift(struct peer_opener *opener, struct peer *peer, const struct address *to,
                       int64_t deadline)
{
    struct thrift_opener *self = (struct thrift_opener *)opener;
    return thrift_client_open(&self->client, peer->io, to, &peer->tls, &self->options, deadline);
}

static int connect_thrift(struct peer *peer, const struct upstream_config *config,
                          struct thrift_client **client, int64_t deadline)
{
    struct thrift_opener opener = {
        .opener.open = open_thrift,
        .options =
            {
                .calls_max = config->calls_max,
                .frame_max_bytes = config->frame_max_bytes,
                .head_max_bytes = config->response_head_max_bytes,
                .send_stall_ms = config->send_timeout_ms,
            },
    };
    peer_connection_begins(peer);
    int result = peer_connect(peer, &opener.opener, deadline);
    if (result < 0)
        return result;
    *client = opener.client;
    (*client)->owner = peer;
    (*client)->on_idle = became_idle;
    (*client)->on_closed = client_closed;
    list_push_front(&peer->thrift, &(*client)->link);
    return 0;
}

/* --- Sharing them ----------------------------------------------------------------------------- */

/* Has the kernel heard the origin's goodbye, and the loop not told us yet? */
static bool hung_up(const struct thrift_client *client)
{
    char byte;
    ssize_t count = recv(client->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return count == 0 || (count < 0 && errno != EAGAIN);
}

static struct thrift_client *find_room(const struct peer *peer, bool verify)
{
    list_for_each(node, &peer->thrift)
    {
        struct thrift_client *client = client_of(node);
        if (!thrift_client_has_room(client))
            continue;
        if (!verify || client->held_count || !hung_up(client))
            return client;
        client->draining = true; /* the loop hears of it soon */
    }
    return NULL;
}

bool peer_thrift_has_room(const struct peer *peer)
{
    return find_room(peer, false) != NULL;
}

int peer_thrift_acquire(struct peer *peer, const struct upstream_config *config, bool fresh,
                        bool verify, struct client_exchange **out, int64_t deadline)
{
    peer->idle_timeout_ms = config->idle_timeout_ms;
    peer->idle_max = config->idle_max;
    struct thrift_client *client = fresh ? NULL : find_room(peer, verify);
    if (!client && !fresh && config->connections_max && peer->open >= config->connections_max)
        return -EAGAIN;
    int result = client ? 0 : connect_thrift(peer, config, &client, deadline);
    if (result < 0)
        return result;
    *out = thrift_client_begin(client);
    if (*out)
        return 0;
    if (!client->held_count)
        thrift_client_end(client, -ECONNRESET, NULL);
    return -ENOMEM;
}

void peer_thrift_give_back(struct peer *peer, struct client_exchange *exchange, bool complete,
                           const struct upstream_config *config)
{
    peer->idle_timeout_ms = config->idle_timeout_ms;
    peer->idle_max = config->idle_max;
    thrift_client_end_exchange(exchange, complete);
}
