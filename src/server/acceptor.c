#include "server/acceptor.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/counters.h"
#include "base/log.h"
#include "http/idle.h"

enum {
    ACCEPT_BURST = 8192,   /* more than a listener's queue holds usually (net.core.somaxconn) */
    TELL_EVERY_MS = 60000, /* of clients that wait */
    ACCEPT_PAUSE_MS = 100, /* after running out of descriptors, and to look for room */
    SHED_BURST = 32,       /* idle connections that are closed at once for those who wait */
    SHED_PAUSE_MS = 5,     /* until they are closed */
};

/* A crowd of clients that say nothing must not take what the requests of others need. */
uint32_t acceptors_connections_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)(limit.rlim_cur - limit.rlim_cur / 4);
}

void acceptors_init(struct acceptors *acceptors, struct io *io, const struct limits *limits)
{
    *acceptors = (struct acceptors){
        .io = io, .limits = *limits, .connections_max = acceptors_connections_max()};
    list_init(&acceptors->list);
}

struct acceptor *acceptors_find(struct acceptors *acceptors, const char *key)
{
    list_for_each(node, &acceptors->list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        if (acceptor->fd >= 0 && acceptor->stands_in_for < 0 && strcmp(acceptor->key, key) == 0)
            return acceptor;
    }
    return NULL;
}

uint32_t acceptors_connections(const struct acceptors *acceptors)
{
    uint32_t count = 0;
    list_for_each(node, &acceptors->list) count +=
        container_of(node, struct acceptor, link)->server.connection_count;
    return count;
}

/* How many descriptors the open connections need: one that is carried to a peer needs two. */
static uint32_t descriptors(const struct acceptors *acceptors)
{
    uint32_t count = 0;
    list_for_each(node, &acceptors->list)
    {
        const struct http_server *server = &container_of(node, struct acceptor, link)->server;
        count += server->connection_count * server->config.connection_descriptors;
    }
    return count;
}

static void resume_accepting(struct timer *timer)
{
    acceptor_start(timer->owner);
}

static void pause_accepting(struct acceptor *acceptor, int64_t pause_ms)
{
    struct io *io = acceptor->all->io;
    timer_start(io_timers(io), &acceptor->resume, io_now_ms(io) + pause_ms);
}

static uint32_t left(uint32_t max, uint32_t used)
{
    return used < max ? max - used : 0;
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How many more connections the open files allow for. */
static uint32_t files_left(const struct acceptor *acceptor)
{
    const struct acceptors *all = acceptor->all;
    return left(all->connections_max, descriptors(all)) /
           acceptor->server.config.connection_descriptors;
}

bool acceptor_has_room(const struct acceptor *acceptor)
{
    return files_left(acceptor) != 0;
}

/* How many more connections may be open. */
static uint32_t room(const struct acceptor *acceptor)
{
    const struct http_server *server = &acceptor->server;
    const struct listener_config *config = &server->config;
    uint32_t possible = files_left(acceptor);
    if (config->connections_max)
        possible = lesser(possible, left(config->connections_max, server->connection_count));
    if (config->connections_total_max)
        possible =
            lesser(possible,
                   left(config->connections_total_max,
                        limits_connections(&server->admission.limits, server->admission.listener)));
    return possible;
}

/* Clients that are refused do not use up the rate of others. */
static void take_over(struct acceptor *acceptor, int fd)
{
    struct http_server *server = &acceptor->server;
    uint64_t before = server->accepted;
    http_server_accept(server, fd);
    if (server->accepted != before)
        admission_rate_take(&server->admission, &server->config);
}

/* Until the next one is due by the rate, or nearly so; at most as long as other pauses. */
static int64_t rate_pause_ms(const struct acceptor *acceptor)
{
    return lesser(1000 / acceptor->server.config.accept_rate + 1, ACCEPT_PAUSE_MS);
}

static void warn_if_full(const struct acceptor *acceptor)
{
    static struct log_limit limit;
    uint32_t suppressed;
    if (!files_left(acceptor) && log_limit_pass(&limit, 1, &suppressed))
        log_warn("%u connections are open: others wait (to allow for more raise the limit of open "
                 "files: ulimit -n, LimitNOFILE=)",
                 acceptors_connections(acceptor->all));
}

/* Says which bound of the site holds clients back, for who wonders why they wait. */
static void tell_of_bound(struct acceptor *acceptor, bool by_rate)
{
    const struct listener_config *config = &acceptor->server.config;
    int64_t now = io_now_ms(acceptor->all->io);
    if (now < acceptor->tell_ms ||
        (!by_rate && !config->connections_max && !config->connections_total_max))
        return;
    acceptor->tell_ms = now + TELL_EVERY_MS;
    if (by_rate)
        log_info("%s: clients wait for their turn (accept_rate = %u)", acceptor->key,
                 config->accept_rate);
    else
        log_info("%s: clients wait until others leave (connections_max, connections_total_max)",
                 acceptor->key);
}

/* How many clients the kernel has queued. */
static unsigned queued(const struct acceptor *acceptor)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    if (getsockopt(acceptor->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
        return info.tcpi_unacked;
    struct pollfd any = {.fd = acceptor->fd, .events = POLLIN};
    return poll(&any, 1, 0) > 0;
}

/* Makes room for those who wait, if it can be had. Returns after which time to look for it. */
static int64_t shed_idle(const struct acceptor *acceptor, bool by_files)
{
    unsigned waiting = lesser(queued(acceptor), SHED_BURST);
    return waiting && idle_shed(by_files ? NULL : &acceptor->server, waiting) ? SHED_PAUSE_MS
                                                                              : ACCEPT_PAUSE_MS;
}

static void hold_back(struct acceptor *acceptor, bool by_rate)
{
    bool by_files = !files_left(acceptor);
    enum counter why = by_rate    ? COUNTER_HELD_BACK_RATE
                       : by_files ? COUNTER_HELD_BACK_FILES
                                  : COUNTER_HELD_BACK_BOUND;
    counters_add(why, 1);
    warn_if_full(acceptor);
    tell_of_bound(acceptor, by_rate);
    pause_accepting(acceptor, by_rate ? rate_pause_ms(acceptor) : shed_idle(acceptor, by_files));
}

static const char *advice(int error)
{
    switch (error) {
    case -EMFILE:
        return " (raise the limit of open files if this lasts: ulimit -n, LimitNOFILE=)";
    case -ENFILE:
        return " (the whole system has no more: raise fs.file-max if this lasts)";
    default:
        return "";
    }
}

static void accept_failed(struct acceptor *acceptor, int error)
{
    static struct log_limit limit;
    uint32_t suppressed;
    counters_add(COUNTER_ACCEPT_FAILED, 1);
    if (log_limit_pass(&limit, 1, &suppressed))
        log_error("cannot accept on %s: %s; trying again%s", acceptor->key, strerror(-error),
                  advice(error));
    bool files = error == -EMFILE || error == -ENFILE;
    pause_accepting(acceptor, files ? shed_idle(acceptor, true) : ACCEPT_PAUSE_MS);
}

static void accepted(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    struct acceptor *acceptor = op->owner;
    if (result >= 0) {
        take_over(acceptor, result);
        if (more &&
            lesser(room(acceptor), admission_rate_left(&acceptor->server.admission,
                                                       &acceptor->server.config)) < ACCEPT_BURST)
            io_cancel(acceptor->all->io, op); /* goes on one by one */
    }
    if (more || acceptor->fd < 0)
        return;
    if (result >= 0 || result == -ECANCELED)
        acceptor_start(acceptor);
    else
        accept_failed(acceptor, result);
}

void acceptor_start(struct acceptor *acceptor)
{
    if (acceptor->fd < 0 || io_op_in_flight(&acceptor->accept))
        return;
    uint32_t possible = room(acceptor);
    uint32_t due = admission_rate_left(&acceptor->server.admission, &acceptor->server.config);
    if (!possible || !due) {
        hold_back(acceptor, possible != 0);
        return;
    }
    acceptor->accept = (struct io_op){.kind = IO_OP_ACCEPT,
                                      .fd = acceptor->fd,
                                      .once = lesser(possible, due) < ACCEPT_BURST,
                                      .done = accepted,
                                      .owner = acceptor};
    io_submit(acceptor->all->io, &acceptor->accept);
}

static int accept_queued(const struct acceptor *acceptor)
{
    return accept4(acceptor->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void acceptor_take_queued(struct acceptor *acceptor)
{
    const struct http_server *server = &acceptor->server;
    int fd;
    while (room(acceptor) && admission_rate_left(&server->admission, &server->config) &&
           (fd = accept_queued(acceptor)) >= 0)
        take_over(acceptor, fd);
}

void acceptor_stop(struct acceptor *acceptor)
{
    if (acceptor->fd < 0)
        return;
    int fd;
    while (acceptor->server.service && (fd = accept_queued(acceptor)) >= 0)
        http_server_accept(&acceptor->server, fd);
    timer_stop(&acceptor->resume);
    fd = acceptor->fd;
    acceptor->fd = -1;
    if (io_op_in_flight(&acceptor->accept))
        io_cancel(acceptor->all->io, &acceptor->accept);
    io_close_fd(acceptor->all->io, fd);
}

struct acceptor *acceptors_add(struct acceptors *acceptors, const char *key, int fd)
{
    struct acceptor *acceptor = calloc(1, sizeof(*acceptor));
    char *copy = strdup(key);
    if (!acceptor || !copy) {
        free(acceptor);
        free(copy);
        close(fd);
        log_error("no memory for listener %s", key);
        return NULL;
    }
    acceptor->all = acceptors;
    acceptor->key = copy;
    acceptor->fd = fd;
    acceptor->stands_in_for = -1;
    http_server_init(&acceptor->server, acceptors->io);
    admission_share(&acceptor->server.admission, &acceptors->limits, copy);
    timer_init(&acceptor->resume, resume_accepting, acceptor);
    list_push_back(&acceptors->list, &acceptor->link);
    return acceptor;
}

void acceptors_sweep(struct acceptors *acceptors)
{
    struct list *kept = &acceptors->list;
    while (kept->next != &acceptors->list) {
        struct list *node = kept->next;
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        if (acceptor->fd >= 0 || acceptor->server.connection_count ||
            io_op_in_flight(&acceptor->accept)) {
            kept = node;
            continue;
        }
        list_remove(node);
        assert(kept->next != node);
        http_server_fini(&acceptor->server);
        free(acceptor->key);
        free(acceptor);
    }
}
