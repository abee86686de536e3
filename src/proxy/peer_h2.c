/* The HTTP/2 connections of a peer: made by coroutines of their own, so that all who come meanwhile
 * wait for the same one, and shared by as many exchanges as they take. The first connection to a
 * peer that chooses its protocol (UPSTREAM_AUTO) is made here, too: all wait for what it says. */
#include "proxy/peer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "io/wait.h"

/* A connection that is being made. */
struct dial {
    struct list link; /* in peer->dials */
    struct peer *peer;
    struct h2_client_options options;
    int64_t deadline;
    struct list waiters;
    uint32_t waiter_count;
};

/* Somebody who waits for one; on his stack. */
struct dial_wait {
    struct list link;
    struct coro *coro;
};

/* --- Idle ones -------------------------------------------------------------------------------- */

static bool idle(const struct h2_client *client)
{
    return timer_armed(&client->idle);
}

unsigned peer_h2_idle_count(const struct peer *peer)
{
    unsigned count = 0;
    list_for_each(node, &peer->h2) count += idle(container_of(node, struct h2_client, link));
    return count;
}

static void idle_expired(struct timer *timer)
{
    h2_client_drain(timer->owner);
}

static void start_idle(struct h2_client *client)
{
    struct peer *peer = client->owner;
    timer_init(&client->idle, idle_expired, client);
    timer_start(io_timers(peer->io), &client->idle, io_now_ms(peer->io) + peer->idle_timeout_ms);
}

static void became_idle(struct h2_client *client)
{
    struct peer *peer = client->owner;
    if (peer_orphaned(peer) || peer_h2_idle_count(peer) >= peer->idle_max)
        h2_client_drain(client);
    else
        start_idle(client);
}

void peer_h2_drain_idle(struct peer *peer)
{
    list_for_each(node, &peer->h2)
    {
        struct h2_client *client = container_of(node, struct h2_client, link);
        if (!client->stream_count)
            h2_client_drain(client);
    }
}

void peer_h2_close_idle(struct peer *peer)
{
    for (struct list *node = peer->h2.next, *next; node != &peer->h2; node = next) {
        struct h2_client *client = container_of(node, struct h2_client, link);
        next = node->next;
        if (!client->stream_count)
            h2_client_close(client, false);
    }
}

void peer_h2_shed(struct peer *peer)
{
    struct h2_client *longest = NULL;
    list_for_each(node, &peer->h2)
    {
        struct h2_client *client = container_of(node, struct h2_client, link);
        if (idle(client) && (!longest || client->idle.at_ms < longest->idle.at_ms))
            longest = client;
    }
    h2_client_close(longest, true);
}

/* --- Making them ------------------------------------------------------------------------------ */

static void client_closed(struct h2_client *client)
{
    struct peer *peer = client->owner;
    peer->h2_count--;
    peer_connection_closed(peer);
}

static void wake_waiters(struct dial *dial, int result)
{
    list_for_each(node, &dial->waiters)
        coro_wake(container_of(node, struct dial_wait, link)->coro, result);
    /* Each takes itself off the list, which lives no longer than this. */
    while (!list_empty(&dial->waiters))
        list_remove(dial->waiters.next);
}

struct h2_opener {
    struct peer_opener opener; /* first */
    const struct h2_client_options *options;
    struct h2_client *client;
};

static int open_h2(struct peer_opener *opener, struct peer *peer, const struct address *to,
                   int64_t deadline)
{
    struct h2_opener *self = (struct h2_opener *)opener;
    return h2_client_open(&self->client, peer->io, to, &peer->tls, self->options, deadline);
}

static void dial_main(void *arg)
{
    struct dial *dial = arg;
    struct peer *peer = dial->peer;
    struct h2_opener opener = {.opener.open = open_h2, .options = &dial->options};
    int result = peer_connect(peer, &opener.opener, dial->deadline);
    if (result == -EPROTONOSUPPORT)
        peer->speaks = PEER_SPEAKS_H1;
    if (result == 0) {
        peer->speaks = PEER_SPEAKS_H2;
        struct h2_client *client = opener.client;
        client->owner = peer;
        client->on_idle = became_idle;
        client->on_closed = client_closed;
        list_push_front(&peer->h2, &client->link);
        peer->h2_count++;
        start_idle(client); /* until the first of those who wait takes it */
    }
    wake_waiters(dial, result);
    list_remove(&dial->link);
    peer->h2_count--;
    free(dial);
    peer_unref(peer);
}

static bool dial_has_room(const struct dial *dial)
{
    /* Before it is known whether there will be streams, nobody makes another. */
    bool undecided = dial->options.may_decline && dial->peer->speaks == PEER_UNDECIDED;
    return undecided || dial->waiter_count < dial->options.streams_max;
}

static struct dial *find_dial(const struct peer *peer)
{
    list_for_each(node, &peer->dials)
    {
        struct dial *dial = container_of(node, struct dial, link);
        if (dial_has_room(dial))
            return dial;
    }
    return NULL;
}

static struct dial *start_dial(struct peer *peer, const struct upstream_config *config)
{
    struct dial *dial = calloc(1, sizeof(*dial));
    if (!dial)
        return NULL;
    dial->peer = peer;
    dial->deadline = io_now_ms(peer->io) + config->connect_timeout_ms;
    dial->options = (struct h2_client_options){
        .streams_max = config->streams_max ? config->streams_max : UINT32_MAX,
        .head_max_bytes = config->response_head_max_bytes,
        .send_stall_ms = config->send_timeout_ms,
        .ping_ms = config->ping_interval_ms,
        .may_decline = config->protocol == UPSTREAM_AUTO,
    };
    list_init(&dial->waiters);
    if (!coro_start(dial_main, dial)) {
        free(dial);
        return NULL;
    }
    peer_connection_begins(peer); /* now, so that nobody makes one too many */
    list_push_back(&peer->dials, &dial->link);
    peer->h2_count++;
    peer->users++;
    return dial;
}

/* Waits for a connection that is being made, or for a new one. Returns 0 when it is there. */
static int await_connection(struct peer *peer, const struct upstream_config *config,
                            int64_t deadline)
{
    struct dial *dial = find_dial(peer);
    if (!dial && config->connections_max && peer->open >= config->connections_max)
        return -EAGAIN;
    if (!dial)
        dial = start_dial(peer, config);
    if (!dial)
        return -ENOMEM;
    struct dial_wait wait = {.coro = coro_self()};
    list_push_back(&dial->waiters, &wait.link);
    dial->waiter_count++;
    int result = wait_wake(peer->io, deadline);
    if (!list_empty(&wait.link)) { /* it is not over yet */
        list_remove(&wait.link);
        dial->waiter_count--;
    }
    return result;
}

/* --- Sharing them ----------------------------------------------------------------------------- */

/* Has the kernel heard the origin's goodbye, and the loop not told us yet? */
static bool hung_up(const struct h2_client *client)
{
    char byte;
    ssize_t count = recv(client->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return count == 0 || (count < 0 && errno != EAGAIN);
}

static struct h2_client *find_room(const struct peer *peer, bool refusing, bool verify)
{
    list_for_each(node, &peer->h2)
    {
        struct h2_client *client = container_of(node, struct h2_client, link);
        if (!h2_client_has_room(client) || (client->refusing && !refusing))
            continue;
        if (verify && !client->stream_count && hung_up(client))
            client->draining = true;
        else
            return client;
    }
    return NULL;
}

bool peer_h2_has_room(const struct peer *peer)
{
    return find_room(peer, true, false) || find_dial(peer);
}

/* The connection for the next exchange. One that refuses streams is passed over for another, but
 * not for a third: an origin that has enough work does not get connections on top. */
static struct h2_client *choose(const struct peer *peer, const struct upstream_config *config,
                                bool verify)
{
    struct h2_client *client = find_room(peer, false, verify);
    bool may_open = !config->connections_max || peer->open < config->connections_max;
    return client || (may_open && peer->h2_count < 2) ? client : find_room(peer, true, verify);
}

int peer_h2_acquire(struct peer *peer, const struct upstream_config *config, bool verify,
                    struct client_exchange **out, int64_t deadline)
{
    peer->idle_timeout_ms = config->idle_timeout_ms;
    peer->idle_max = config->idle_max;
    struct h2_client *client = choose(peer, config, verify);
    while (!client) {
        int result = await_connection(peer, config, deadline);
        if (result < 0)
            return result;
        client = choose(peer, config, verify);
    }
    *out = h2_client_begin(client);
    return *out ? 0 : -ENOMEM;
}

void peer_h2_give_back(struct peer *peer, struct client_exchange *exchange, bool complete,
                       const struct upstream_config *config)
{
    peer->idle_timeout_ms = config->idle_timeout_ms;
    peer->idle_max = config->idle_max;
    h2_client_end_exchange(exchange, complete);
}
