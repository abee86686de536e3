#include "http/server.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/admission.h"
#include "http/connection.h"
#include "http/idle.h"
#include "http/proxy_info.h"
#include "tls/tls_stream.h"

enum { REFUSALS_LOGGED_PER_S = 1 };

void http_server_init(struct http_server *server, struct io *io)
{
    *server = (struct http_server){.io = io};
    admission_init(&server->admission);
    list_init(&server->connections);
    listener_config_init(&server->config);
}

/* All of its connections, or those only that were handed on. */
static void drain_connections(struct http_server *listener, bool handed_on)
{
    for (struct list *node = listener->connections.next, *next; node != &listener->connections;
         node = next) {
        next = node->next;
        struct connection *connection = container_of(node, struct connection, link);
        if (handed_on && connection->server == listener)
            continue;
        connection->server->draining = true;
        connection->protocol->drain(connection);
    }
}

void http_server_set_service(struct http_server *server, struct service *service,
                             const struct listener_config *config)
{
    struct service *old = server->service;
    service->retain(service);
    server->service = service;
    server->config = *config;
    drain_connections(server, true);
    if (old)
        old->release(old);
}

/* --- Connections ------------------------------------------------------------------------------ */

static void connection_arrival(struct stream *stream)
{
    struct connection *connection = stream->owner;
    connection->protocol->arrival(connection);
}

static void count_connections(struct http_server *server, int difference)
{
    server->connection_count += (uint32_t)difference;
    counters_add(COUNTER_CONNECTIONS_OPEN, difference);
    limits_add_connections(&server->admission.limits, server->admission.listener, difference);
}

static void free_local(struct connection *connection)
{
    if (connection->stream.local != &connection->listener->local)
        free((struct address *)connection->stream.local);
    connection->stream.local = &connection->listener->local;
}

/* Nearly all clients of a listener come to one address, which these share: a connection is to be
 * small. */
int connection_set_local(struct connection *connection, const struct address *local)
{
    struct address *shared = &connection->listener->local;
    free_local(connection);
    if (!shared->len)
        *shared = *local;
    if (address_equal(shared, local))
        return 0;
    struct address *own = malloc(sizeof(*own));
    if (!own)
        return -ENOMEM;
    *own = *local;
    connection->stream.local = own;
    return 0;
}

static void connection_closed(struct stream *stream)
{
    struct connection *connection = stream->owner;
    if (connection->starting) {
        connection->starting = false;
        return;
    }
    bool handed_on = connection->server != connection->listener;
    struct service *held = handed_on ? connection->server->service : NULL;
    connection->protocol->closed(connection);
    free_local(connection);
    list_remove(&connection->link);
    idle_end(connection);
    admission_leave(connection);
    count_connections(connection->listener, -1);
    proxy_info_release(connection->proxied);
    free(connection);
    if (held)
        held->release(held);
}

static void get_remote(int fd, struct address *remote)
{
    remote->len = sizeof(struct sockaddr_un);
    if (getpeername(fd, &remote->any, &remote->len) != 0)
        remote->len = 0;
}

static void init_stream(struct connection *connection, int fd, const struct address *remote)
{
    struct stream *stream = &connection->stream;
    stream_init(stream, connection->server->io, fd);
    stream->side = STREAM_OF_CLIENT;
    stream->owner = connection;
    stream->on_arrival = connection_arrival;
    stream->on_closed = connection_closed;
    stream->movable = true;
    stream->remote = *remote;
    stream->local = &connection->listener->local;
}

/* Returns 0 or -ENOMEM. */
static int settle_stream(struct connection *connection)
{
    struct http_server *server = connection->server;
    struct stream *stream = &connection->stream;
    int fd = stream->fd;
    struct address local = {.len = sizeof(struct sockaddr_un)};
    if (getsockname(fd, &local.any, &local.len) != 0)
        local.len = 0;
    stream->local_socket = local.any.sa_family == AF_UNIX;
    if (!stream->local_socket) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    stream->send_stall_ms = server->config.send_timeout_ms;
    return connection_set_local(connection, &local);
}

void connection_watch_client(struct connection *connection)
{
    const struct listener_config *config = &connection->server->config;
    stream_watch_peer(&connection->stream, config->keepalive_ms, config->ack_timeout_ms);
}

void connection_start_protocol(struct connection *connection)
{
    const struct listener_config *config = &connection->server->config;
    uint32_t protocols = config->protocols;
    if (config->tls && !connection->stream.filter)
        tls_connection_start(connection);
    else if (config->start)
        config->start(connection);
    else if (!(protocols & PROTOCOL_H2C))
        h1_connection_start(connection);
    else if (protocols & PROTOCOL_H1)
        h2_preface_start(connection);
    else
        h2_connection_start(connection);
}

void connection_hand_on(struct connection *connection, struct http_server *to)
{
    assert(connection->server == connection->listener);
    to->service->retain(to->service);
    to->io = connection->listener->io;
    connection->server = to;
    connection->stream.watch_hangup = false;
    connection->stream.send_stall_ms = to->config.send_timeout_ms;
    connection_start_protocol(connection);
}

static struct connection *add_connection(struct http_server *server, uint64_t source)
{
    struct connection *connection = h1_connection_create();
    if (!connection)
        return NULL;
    connection->server = connection->listener = server;
    connection->source = source;
    list_init(&connection->idle_link);
    list_push_back(&server->connections, &connection->link);
    count_connections(server, 1);
    return connection;
}

/* A reset leaves nothing to wait for, neither here nor in the kernel. */
static void refuse(struct http_server *server, int fd)
{
    struct linger at_once = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    io_close_fd(server->io, fd);
}

static void nothing_held(struct connection *connection)
{
    (void)connection;
}

static const struct protocol none_yet = {.closed = nothing_held};

void http_server_accept(struct http_server *server, int fd)
{
    struct address remote;
    uint64_t source = 0;
    get_remote(fd, &remote);
    bool proxied = proxied_connection_expected(server, &remote);
    if (!proxied && !admission_check(&server->admission, &server->config, &remote, &source)) {
        refuse(server, fd);
        return;
    }
    struct connection *connection = add_connection(server, source);
    if (!connection) {
        log_no_memory("no memory for another connection: it is closed");
        counters_add(COUNTER_REFUSED_MEMORY, 1);
        admission_give(&server->admission, &source);
        io_close_fd(server->io, fd);
        return;
    }
    server->accepted++;
    counters_add(COUNTER_CONNECTIONS_ACCEPTED, 1);
    connection->protocol = &none_yet;
    init_stream(connection, fd, &remote);
    if (settle_stream(connection) != 0) {
        log_no_memory("no memory for a connection's address: it is closed");
        counters_add(COUNTER_REFUSED_MEMORY, 1);
        stream_abort(&connection->stream);
        return;
    }
    connection->starting = true;
    if (proxied)
        proxied_connection_start(connection);
    else
        connection_start_protocol(connection);
    if (!connection->starting) { /* there was no memory for its protocol */
        connection_closed(&connection->stream);
        return;
    }
    connection->starting = false;
    stream_start(&connection->stream);
}

/* What is known of the client may be what a proxy has said: only the socket tells what it is. */
static bool is_local(int fd)
{
    int family = AF_UNSPEC;
    socklen_t len = sizeof(family);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len);
    return family == AF_UNIX;
}

/* Whatever was allowed when it was let in: it is here now, and counts. */
struct connection *http_server_adopt(struct http_server *server, int fd,
                                     const struct address *remote, const struct address *local)
{
    uint64_t source = admission_count(&server->admission, &server->config, remote);
    struct connection *connection = add_connection(server, source);
    if (!connection) {
        admission_give(&server->admission, &source);
        return NULL;
    }
    connection->protocol = &none_yet;
    init_stream(connection, fd, remote);
    connection->stream.local_socket = is_local(fd);
    if (connection_set_local(connection, local) != 0) {
        connection_closed(&connection->stream);
        return NULL;
    }
    return connection;
}

void http_server_drain(struct http_server *server)
{
    server->draining = true;
    drain_connections(server, false);
}

void http_server_abort(struct http_server *server)
{
    struct list doomed;
    list_move_all(&doomed, &server->connections);
    while (!list_empty(&doomed)) {
        struct connection *connection = container_of(doomed.next, struct connection, link);
        list_remove(&connection->link);
        list_push_back(&server->connections, &connection->link);
        connection->protocol->abort(connection);
    }
}

void http_server_fini(struct http_server *server)
{
    if (server->service)
        server->service->release(server->service);
    server->service = NULL;
}

/* --- Exchanges -------------------------------------------------------------------------------- */

/* Is there more to do than can be done? What has waited longest since the kernel told of it is what
 * the worker comes to last. */
static enum overload judge_load(const struct exchange *exchange,
                                const struct listener_config *config)
{
    int64_t waited_ms = exchange->started_us / 1000 - io_now_ms(exchange->io);
    if (config->active_max && exchange_active_count() > config->active_max)
        return OVERLOAD_ACTIVE;
    if (config->queue_time_max_ms && waited_ms > config->queue_time_max_ms)
        return OVERLOAD_QUEUED;
    return OVERLOAD_NONE;
}

void connection_begin_exchange(struct connection *connection, struct exchange *exchange,
                               const struct exchange_codec *codec, struct coro *coro)
{
    struct http_server *server = connection->server;
    struct request *request = &exchange->request;
    server->requests++;
    exchange->received_method = request->method;
    request->tls = tls_stream_session(&connection->stream);
    request->scheme = request->tls ? SLICE("https") : SLICE("http");
    request->remote = &connection->stream.remote;
    request->local = connection->stream.local;
    request->proxied = connection->proxied;
    exchange->codec = codec;
    exchange->connection = connection;
    exchange->coro = coro;
    exchange->service = server->service;
    exchange->service->retain(exchange->service);
    exchange->started_us = clock_now_us();
    exchange->overload = judge_load(exchange, &server->config);
    if (server->config.total_timeout_ms)
        exchange->total_deadline = io_now_ms(server->io) + server->config.total_timeout_ms;
}

void connection_count_refusal(const struct connection *connection, const char *why)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char client[ADDRESS_TEXT_MAX];
    counters_add(COUNTER_REQUESTS_MALFORMED, 1);
    if (!log_limit_pass(&limit, REFUSALS_LOGGED_PER_S, &suppressed))
        return;
    address_format(&connection->stream.remote, client);
    log_info("request of %s is refused: %s (%u more were not logged)", client, why, suppressed);
}

static void note(struct service *service, struct exchange *exchange, uint16_t status,
                 const char *why)
{
    if (!service->refused)
        return;
    exchange->sent_status = status;
    service->refused(service, &exchange->request, why);
}

/* Cheaply, so that those who are served do not pay for those who are not. */
static struct response *answer_overload(struct exchange *exchange)
{
    static struct log_limit limit;
    uint32_t suppressed;
    bool by_count = exchange->overload == OVERLOAD_ACTIVE;
    struct slice why = by_count ? SLICE("more requests are under way than active_max allows")
                                : SLICE("the request has waited for longer than queue_time_max");
    counters_add(by_count ? COUNTER_REQUESTS_SHED_ACTIVE : COUNTER_REQUESTS_SHED_QUEUED, 1);
    if (log_limit_pass(&limit, REFUSALS_LOGGED_PER_S, &suppressed))
        log_warn("overload: a request is answered 503: %s (%u more were not logged)", why.ptr,
                 suppressed);
    note(exchange->service, exchange, 503, why.ptr);
    return response_create_error(&exchange->request, 503, RESPONSE_OVERLOADED, why);
}

void connection_note_refusal(const struct connection *connection, struct exchange *exchange,
                             uint16_t status, const char *why)
{
    exchange->request.remote = &connection->stream.remote;
    exchange->request.local = connection->stream.local;
    note(connection->server->service, exchange, status, why);
}

/* A layer that gives the response another status than that of a consent has refused what the origin
 * agreed to. And a 2xx to CONNECT promises a tunnel (RFC 9110 section 9.3.6): one that answers all
 * methods alike has not thought of that. */
static struct response *judge_tunnel(struct exchange *exchange, struct response *response)
{
    bool connect = exchange->received_method == METHOD_CONNECT;
    bool consent = connect ? response->status / 100 == 2 : response->status == 101;
    if (response->tunnel && !consent) {
        stream_abort(response->tunnel);
        response->tunnel = NULL;
    }
    if (response->tunnel || !connect || !consent)
        return response;
    body_release(&response->body);
    return response_create_text(&exchange->request, 405, SLICE("CONNECT is not offered here\n"));
}

struct response *connection_answer(struct exchange *exchange)
{
    struct request *request = &exchange->request;
    if (exchange->overload)
        return answer_overload(exchange);
    struct response *response = exchange->service->handle(exchange->service, request);
    if (response)
        response = judge_tunnel(exchange, response);
    if (response || coro_cancelled())
        return response;
    return response_create_error(request, 503, RESPONSE_OVERLOADED, SLICE("out of memory"));
}
