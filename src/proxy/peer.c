#include "proxy/peer_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/idle.h"
#include "io/wait.h"
#include "net/dns.h"
#include "proxy/pick.h"

enum {
    RESOLVE_MIN_MS = 1000, /* a name is not asked for again sooner, whatever its TTL */
    RESOLVE_MAX_MS = 300000,
    RESOLVE_RETRY_MS = 5000, /* after a failed refresh the old addresses serve on */
    RESOLVE_TIMEOUT_MS = 10000,
    CHANGES_MAX = 4,   /* of a peer's mind, for one exchange */
    SHED_COUNT = 8,    /* idle connections that are closed when another one cannot be opened */
    SHED_PAUSE_MS = 5, /* until they are closed */
};

static void drop_idle(struct h1_client *client);

static struct list peers = {&peers, &peers};

static struct peer *find(const char *key)
{
    list_for_each(node, &peers)
    {
        struct peer *peer = container_of(node, struct peer, link);
        if (strcmp(peer->key, key) == 0)
            return peer;
    }
    return NULL;
}

struct peer *peer_at(const struct address *address)
{
    list_for_each(node, &peers)
    {
        struct peer *peer = container_of(node, struct peer, link);
        for (unsigned i = 0; i < peer->address_count; i++)
            if (address_equal(&peer->addresses[i], address))
                return peer;
    }
    return NULL;
}

/* A numeric address is final; a name is resolved when it is first needed. */
static int init_address(struct peer *peer, const char **why)
{
    struct slice text = slice_from_cstr(peer->text);
    if (address_parse(text, &peer->addresses[0], why) == 0) {
        peer->address_count = 1;
        peer->resolved_until_ms = DEADLINE_NEVER;
        return 0;
    }
    struct slice host;
    uint16_t port;
    return address_split(text, &host, &port, why);
}

static char *make_key(const struct upstream_config *config, const char *text)
{
    char *key = NULL;
    const char *tls_key = config->tls_key ? config->tls_key : "";
    if (asprintf(&key, "%s\n%s\n%d\n%s", config->name, text, config->protocol, tls_key) < 0)
        return NULL;
    return key;
}

static void free_peer(struct peer *peer)
{
    if (peer->tls.client)
        tls_client_release(peer->tls.client);
    tls_memory_free(&peer->tls_memory);
    free((char *)peer->tls.name);
    free(peer->text);
    free(peer->key);
    free(peer);
}

/* The name that the peer must prove: the host that it is known by, unless another is configured. */
static char *name_of(const struct upstream_config *config, const char *text)
{
    struct slice host = SLICE("");
    uint16_t port;
    const char *why;
    if (config->tls_name)
        return strdup(config->tls_name);
    address_split(slice_from_cstr(text), &host, &port, &why);
    return strndup(host.ptr, host.len);
}

static int init_peer(struct peer *peer, const struct upstream_config *config, const char *text,
                     const char **why)
{
    list_init(&peer->idle);
    list_init(&peer->h2);
    list_init(&peer->thrift);
    list_init(&peer->dials);
    list_init(&peer->unresolved);
    peer->text = strdup(text);
    if (!peer->text)
        return -ENOMEM;
    if (config->tls) {
        tls_client_retain(config->tls);
        peer->tls.client = config->tls;
        peer->tls.memory = &peer->tls_memory;
        peer->tls.name = name_of(config, text);
        if (!peer->tls.name)
            return -ENOMEM;
    }
    return init_address(peer, why);
}

struct peer *peer_get(struct io *io, const struct upstream_config *config, const char *text,
                      const char **why)
{
    *why = "out of memory";
    char *key = make_key(config, text);
    if (!key)
        return NULL;
    struct peer *peer = find(key);
    if (peer) {
        free(key);
        peer->users++;
        return peer;
    }
    peer = calloc(1, sizeof(*peer));
    if (!peer) {
        free(key);
        return NULL;
    }
    peer->users = 1;
    peer->key = key;
    peer->counters = counters_upstream(config->name);
    peer->io = io;
    if (init_peer(peer, config, text, why) != 0) {
        free_peer(peer);
        return NULL;
    }
    list_push_back(&peers, &peer->link);
    return peer;
}

static void close_idle(struct peer *peer)
{
    while (!list_empty(&peer->idle)) {
        struct h1_client *client = container_of(peer->idle.next, struct h1_client, link);
        peer->idle_count--;
        h1_client_close(client);
    }
}

void peer_unref(struct peer *peer)
{
    if (--peer->users)
        return;
    list_remove(&peer->link);
    free_peer(peer);
}

void peer_release(struct peer *peer)
{
    /* The last upstream has gone: what is left are its connections, which hold the peer. */
    if (peer->users == peer->open + 1) {
        peer_h2_drain_idle(peer);
        peer_thrift_close_idle(peer);
        close_idle(peer);
    }
    peer_unref(peer);
}

bool peer_up(const struct peer *peer)
{
    return !peer->down_until_ms || peer->down_until_ms <= io_now_ms(peer->io);
}

void peer_succeeded(struct peer *peer)
{
    if (peer->down_until_ms)
        log_info("peer %s answers again", peer->text);
    peer->fails = 0;
    peer->down_until_ms = 0;
}

void peer_failed(struct peer *peer, const struct upstream_config *config)
{
    peer->fails++;
    counters_add_upstream(peer->counters, UPSTREAM_FAILURES, 1);
    if (!config->fail_max || peer->fails < config->fail_max)
        return;
    if (peer_up(peer))
        log_warn("peer %s of upstream \"%s\" failed %u times in a row: not used for %u ms",
                 peer->text, config->name, peer->fails, config->fail_timeout_ms);
    peer->down_until_ms = io_now_ms(peer->io) + config->fail_timeout_ms;
}

/* --- Names ------------------------------------------------------------------------------------ */

static int resolve(struct peer *peer, int64_t deadline)
{
    char name[256];
    const char *why;
    struct slice host;
    uint16_t port;
    if (address_split(slice_from_cstr(peer->text), &host, &port, &why) != 0 ||
        host.len >= sizeof(name))
        return -EINVAL;
    memcpy(name, host.ptr, host.len);
    name[host.len] = '\0';

    struct address found[PEER_ADDRESSES_MAX];
    unsigned ttl_s = 0;
    int count = dns_resolve(peer->io, name, port, found, PEER_ADDRESSES_MAX, &ttl_s, deadline);
    if (count <= 0)
        return count < 0 ? count : -EHOSTUNREACH;
    memcpy(peer->addresses, found, (size_t)count * sizeof(found[0]));
    peer->address_count = (unsigned)count;
    int64_t keep_ms = (int64_t)ttl_s * 1000;
    keep_ms = keep_ms < RESOLVE_MIN_MS ? RESOLVE_MIN_MS : keep_ms;
    keep_ms = keep_ms > RESOLVE_MAX_MS ? RESOLVE_MAX_MS : keep_ms;
    peer->resolved_until_ms = io_now_ms(peer->io) + keep_ms;
    return 0;
}

/* Somebody who waits for an address; on his stack. */
struct address_wait {
    struct list link;
    struct coro *coro;
};

static void resolve_main(void *arg)
{
    struct peer *peer = arg;
    int result = resolve(peer, io_now_ms(peer->io) + RESOLVE_TIMEOUT_MS);
    if (result < 0 && peer->address_count) {
        log_warn("cannot resolve %s again: %s; its old addresses stay in use", peer->text,
                 strerror(-result));
        peer->resolved_until_ms = io_now_ms(peer->io) + RESOLVE_RETRY_MS;
    }
    peer->resolving = false;
    list_for_each(node, &peer->unresolved)
        coro_wake(container_of(node, struct address_wait, link)->coro, result);
    peer_unref(peer);
}

static int start_resolving(struct peer *peer)
{
    if (!coro_start(resolve_main, peer))
        return -ENOMEM;
    peer->resolving = true;
    peer->users++;
    return 0;
}

/* Makes sure that there is an address: waits for the first one, refreshes later ones behind.
 * Whoever gives up leaves the question to those who come next. */
static int ensure_address(struct peer *peer, int64_t deadline)
{
    int result = 0;
    bool due = !peer->address_count || peer->resolved_until_ms <= io_now_ms(peer->io);
    if (due && !peer->resolving)
        result = start_resolving(peer);
    if (peer->address_count || result < 0)
        return peer->address_count ? 0 : result;
    struct address_wait wait = {.coro = coro_self()};
    list_push_back(&peer->unresolved, &wait.link);
    result = wait_wake(peer->io, deadline);
    list_remove(&wait.link);
    return result;
}

/* --- Connections ------------------------------------------------------------------------------ */

void peer_connection_begins(struct peer *peer)
{
    peer->users++; /* while connecting, then by the client */
    peer->open++;
}

void peer_connection_closed(struct peer *peer)
{
    peer->open--;
    pick_room_freed(peer);
    peer_unref(peer);
}

static void client_closed(struct h1_client *client)
{
    peer_connection_closed(client->owner);
}

/* Tries the addresses of a name, from the next one in turn on, until one takes the connection: each
 * of them, whatever others try meanwhile. The time is shared among them, so that one that swallows
 * connections leaves some to the others. */
static int open_one(struct peer *peer, struct peer_opener *opener, int64_t deadline)
{
    int result = -EHOSTUNREACH;
    unsigned count = peer->address_count;
    unsigned first = peer->next_address++;
    for (unsigned i = 0; i < count; i++) {
        int64_t now_ms = io_now_ms(peer->io);
        int64_t until =
            deadline == DEADLINE_NEVER ? deadline : now_ms + (deadline - now_ms) / (count - i);
        struct address to = peer->addresses[(first + i) % peer->address_count];
        result = opener->open(opener, peer, &to, until);
        if (result == 0 || result == -ECANCELED || result == -EMFILE || result == -ENFILE ||
            result == -EPROTONOSUPPORT)
            break;
    }
    return result;
}

static bool same_address(const struct peer *a, const struct peer *b)
{
    for (unsigned i = 0; i < a->address_count; i++)
        for (unsigned j = 0; j < b->address_count; j++)
            if (address_equal(&a->addresses[i], &b->addresses[j]))
                return true;
    return false;
}

/* All that a peer that chooses its protocol may have, too. */
static unsigned idle_of_all_kinds(const struct peer *peer)
{
    return peer->idle_count + peer_h2_idle_count(peer) + peer_thrift_idle_count(peer);
}

/* Of the peers, or of those that share an address with one, the one with most idle connections. */
static struct peer *most_idle(const struct peer *like)
{
    struct peer *most = NULL;
    unsigned most_count = 0;
    list_for_each(node, &peers)
    {
        struct peer *peer = container_of(node, struct peer, link);
        unsigned count = idle_of_all_kinds(peer);
        if (count <= most_count || (like && !same_address(peer, like)))
            continue;
        most = peer;
        most_count = count;
    }
    return most;
}

static void shed_one(struct peer *peer)
{
    if (peer->idle_count) {
        struct h1_client *client = container_of(peer->idle.prev, struct h1_client, link);
        client->input.ended = false; /* a reset */
        drop_idle(client);
    } else if (peer_h2_idle_count(peer)) {
        peer_h2_shed(peer);
    } else {
        peer_thrift_shed(peer);
    }
}

/* Closes some idle connections, at most so many, the longest idle ones of a peer first; by a reset,
 * which leaves no port behind that waits for its end. */
static unsigned shed_idle(const struct peer *like, unsigned count)
{
    struct peer *peer;
    unsigned shed = 0;
    for (; shed < count && (peer = most_idle(like)); shed++)
        shed_one(peer);
    counters_add(COUNTER_SHED_PEERS, shed);
    return shed;
}

/* A connection could not be made for want of what idle ones hold: is it worth another try? */
static bool make_way(struct peer *peer, int error)
{
    bool files = error == -EMFILE || error == -ENFILE;
    if (!files && error != -EADDRNOTAVAIL)
        return false;
    if (!coro_self()) /* a flow of datagrams on the loop's own stack; it tries again on another */
        return false;
    if (!shed_idle(files ? NULL : peer, SHED_COUNT) && !(files && idle_shed(NULL, SHED_COUNT)))
        return false;
    return wait_sleep(peer->io, io_now_ms(peer->io) + SHED_PAUSE_MS) != -ECANCELED;
}

int peer_connect(struct peer *peer, struct peer_opener *opener, int64_t deadline)
{
    counters_add_upstream(peer->counters, UPSTREAM_CONNECTS, 1);
    int result = ensure_address(peer, deadline);
    if (result == 0) {
        result = open_one(peer, opener, deadline);
        if (result < 0 && make_way(peer, result))
            result = open_one(peer, opener, deadline);
    }
    if (result < 0) {
        counters_add_upstream(peer->counters, UPSTREAM_CONNECT_FAILURES, 1);
        peer_connection_closed(peer);
    }
    return result;
}

struct h1_opener {
    struct peer_opener opener; /* first */
    struct slice header;
    struct h1_client *client;
};

static int open_h1(struct peer_opener *opener, struct peer *peer, const struct address *to,
                   int64_t deadline)
{
    struct h1_opener *self = (struct h1_opener *)opener;
    return h1_client_open(&self->client, peer->io, to, self->header, &peer->tls, deadline);
}

static int connect_h1(struct peer *peer, const struct peer_greeting *greeting,
                      struct h1_client **client, int64_t deadline)
{
    struct h1_opener opener = {.opener.open = open_h1, .header = greeting->bytes};
    struct slice identity = greeting->identity;
    char *copy = identity.len ? malloc(identity.len) : NULL;
    if (identity.len && !copy)
        return -ENOMEM;
    peer_connection_begins(peer);
    int result = peer_connect(peer, &opener.opener, deadline);
    if (result < 0) {
        free(copy);
        return result;
    }
    *client = opener.client;
    assert(*client);
    if (copy)
        memcpy(copy, identity.ptr, identity.len);
    (*client)->identity = slice_of(copy, identity.len);
    (*client)->owner = peer;
    (*client)->on_closed = client_closed;
    return 0;
}

static void drop_idle(struct h1_client *client)
{
    struct peer *peer = client->owner;
    peer->idle_count--;
    h1_client_close(client);
}

static void idle_arrival(struct stream *stream)
{
    drop_idle(stream->owner); /* the origin closed it, or speaks unasked */
}

static void idle_expired(struct timer *timer)
{
    drop_idle(timer->owner);
}

/* Has the kernel something that the loop has not told us yet? */
static bool kernel_quiet(const struct h1_client *client)
{
    char byte;
    return recv(client->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static struct h1_client *take_idle(struct peer *peer, struct slice identity, bool verify)
{
    for (struct list *node = peer->idle.next, *next; node != &peer->idle; node = next) {
        struct h1_client *client = container_of(node, struct h1_client, link);
        next = node->next;
        if (!slice_equal(client->identity, identity))
            continue;
        if (!stream_quiet(&client->stream) || (verify && !kernel_quiet(client))) {
            drop_idle(client);
            continue;
        }
        list_remove(&client->link);
        timer_stop(&client->idle);
        peer->idle_count--;
        client->stream.on_arrival = NULL;
        return client;
    }
    return NULL;
}

static int acquire_h1(struct peer *peer, const struct upstream_config *config,
                      const struct peer_greeting *greeting, bool fresh, bool verify,
                      struct client_exchange **out, int64_t deadline)
{
    struct h1_client *client = fresh ? NULL : take_idle(peer, greeting->identity, verify);
    /* The room that there is may be that of idle connections which are others'. */
    if (!client && greeting->identity.len && !peer_make_room(peer, config->connections_max))
        return -EAGAIN;
    int result = client ? 0 : connect_h1(peer, greeting, &client, deadline);
    if (result == 0)
        *out = &client->exchange;
    return result;
}

/* HTTP/1 with a peer that may choose HTTP/2 now, though it did not before: -EPROTONOSUPPORT then.
 */
static int acquire_h1_offering_h2(struct peer *peer, const struct upstream_config *config,
                                  bool fresh, bool verify, struct client_exchange **out,
                                  int64_t deadline)
{
    const struct peer_greeting nothing = {.bytes = SLICE("")};
    struct h1_client *client = fresh ? NULL : take_idle(peer, nothing.identity, verify);
    int result = 0;
    if (!client && !peer_make_room(peer, config->connections_max))
        return -EAGAIN;
    if (!client)
        result = connect_h1(peer, &nothing, &client, deadline);
    if (result < 0)
        return result;
    if (client_tls_agreed(&client->stream, "h2")) {
        peer->speaks = PEER_UNDECIDED;
        h1_client_close(client);
        return -EPROTONOSUPPORT;
    }
    *out = &client->exchange;
    return 0;
}

/* Goes by what the peer agreed on last, and by what it says now where that has changed. */
static int acquire_auto(struct peer *peer, const struct upstream_config *config, bool fresh,
                        bool verify, struct client_exchange **out, int64_t deadline)
{
    int result = -EPROTONOSUPPORT;
    for (int i = 0; i < CHANGES_MAX && result == -EPROTONOSUPPORT; i++)
        result = peer->speaks == PEER_SPEAKS_H1
                     ? acquire_h1_offering_h2(peer, config, fresh, verify, out, deadline)
                     : peer_h2_acquire(peer, config, verify, out, deadline);
    return result == -EPROTONOSUPPORT ? -EPROTO : result;
}

int peer_acquire(struct peer *peer, const struct upstream_config *config,
                 const struct peer_greeting *greeting, bool fresh, bool verify,
                 struct client_exchange **out, int64_t deadline)
{
    int result;
    if (config->protocol == UPSTREAM_H2)
        result = peer_h2_acquire(peer, config, verify, out, deadline);
    else if (config->protocol == UPSTREAM_AUTO)
        result = acquire_auto(peer, config, fresh, verify, out, deadline);
    else if (config->protocol == UPSTREAM_THRIFT)
        result = peer_thrift_acquire(peer, config, fresh, verify, out, deadline);
    else
        result = acquire_h1(peer, config, greeting, fresh, verify, out, deadline);
    if (result < 0)
        return result;
    peer->active++;
    (*out)->send_timeout_ms = config->send_timeout_ms;
    (*out)->read_timeout_ms = config->read_timeout_ms;
    (*out)->head_max_bytes = config->response_head_max_bytes;
    return 0;
}

bool peer_has_room(const struct peer *peer, unsigned connections_max)
{
    return !connections_max || peer->open < connections_max || peer->idle_count ||
           (peer->h2_count && peer_h2_has_room(peer)) || peer_thrift_has_room(peer);
}

bool peer_orphaned(const struct peer *peer)
{
    return peer->users == peer->open;
}

/* Makes room for one more idle connection. False if there can be none. */
static bool make_room(struct peer *peer, const struct upstream_config *config)
{
    if (peer->idle_count >= config->idle_max && config->idle_max)
        drop_idle(container_of(peer->idle.prev, struct h1_client, link));
    return config->idle_max > 0;
}

void peer_give_back(struct peer *peer, struct client_exchange *exchange, bool complete,
                    const struct upstream_config *config)
{
    peer->active--;
    if (exchange->ops == &thrift_client_ops) {
        peer_thrift_give_back(peer, exchange, complete, config);
        return;
    }
    if (exchange->ops != &h1_client_ops) {
        peer_h2_give_back(peer, exchange, complete, config);
        return;
    }
    struct h1_client *client = h1_client_of(exchange);
    if (!h1_client_end_exchange(client, complete) || peer_orphaned(peer) ||
        !make_room(peer, config)) {
        h1_client_close(client);
        return;
    }
    client->stream.on_arrival = idle_arrival;
    timer_init(&client->idle, idle_expired, client);
    timer_start(io_timers(peer->io), &client->idle, io_now_ms(peer->io) + config->idle_timeout_ms);
    list_push_front(&peer->idle, &client->link);
    peer->idle_count++;
}

static void tunnel_closed(struct h1_client *client)
{
    struct peer *peer = client->owner;
    peer->active--;
    peer_connection_closed(peer);
}

struct stream *peer_give_away(struct peer *peer, struct client_exchange *exchange)
{
    if (exchange->ops == &h1_client_ops)
        h1_client_of(exchange)->on_closed = tunnel_closed;
    else
        peer->active--;
    return exchange->ops->detach(exchange);
}

bool peer_make_room(struct peer *peer, unsigned connections_max)
{
    if (connections_max && peer->open >= connections_max && peer->idle_count)
        drop_idle(container_of(peer->idle.prev, struct h1_client, link));
    return !connections_max || peer->open < connections_max;
}

void peers_close_idle(void)
{
    for (struct list *node = peers.next, *next; node != &peers; node = next) {
        struct peer *peer = container_of(node, struct peer, link);
        next = node->next;
        peer->users++; /* outlive its connections here */
        peer_h2_close_idle(peer);
        peer_thrift_close_idle(peer);
        close_idle(peer);
        peer_unref(peer);
    }
}
