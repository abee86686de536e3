#include "net/dns.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "io/wait.h"

/* Servers to ask instead of those of /etc/resolv.conf, as "host:port,host:port". */
#define SERVERS_VARIABLE "MONOLAKE_DNS_SERVERS"

/* A question is put twice, for 1 s and for 2: c-ares' own 5, 10, 20 and 40 s are longer than
 * anybody waits, so that a lost datagram, or a server that never answers for IPv6, would be no
 * address. */
enum { TRY_MS = 1000, TRIES = 2 };

/* One socket of c-ares, watched while c-ares wants to read or write. */
struct watch {
    struct list link;
    struct io_op poll;
    short wanted; /* poll events; 0: c-ares is about to close it */
};

/* One question. Outlives its asker if that one gives up: c-ares cancels only whole channels. */
struct query {
    struct coro *coro; /* suspended in dns_resolve; NULL when not */
    bool abandoned;
    bool answered;
    int status; /* of c-ares */
    struct ares_addrinfo *found;
};

/* One resolver per worker. */
static struct {
    struct io *io;
    ares_channel channel;
    struct list watches;
    struct timer timer;
    bool ready;
} resolver;

static void arm_timer(void);

static void process(ares_socket_t readable, ares_socket_t writable)
{
    ares_process_fd(resolver.channel, readable, writable);
    arm_timer();
}

static void timed_out(struct timer *timer)
{
    (void)timer;
    process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void arm_timer(void)
{
    struct timeval left;
    if (!ares_timeout(resolver.channel, NULL, &left)) {
        timer_stop(&resolver.timer);
        return;
    }
    int64_t ms = (int64_t)left.tv_sec * 1000 + left.tv_usec / 1000 + 1;
    timer_start(io_timers(resolver.io), &resolver.timer, io_now_ms(resolver.io) + ms);
}

static void arm_watch(struct watch *watch);

static void polled(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct watch *watch = op->owner;
    if (!watch->wanted) {
        list_remove(&watch->link);
        free(watch);
        return;
    }
    /* c-ares may close the socket in here: the watch then waits for its end above. */
    int fd = op->fd;
    arm_watch(watch);
    if (result > 0)
        process(result & (POLLIN | POLLERR | POLLHUP) ? fd : ARES_SOCKET_BAD,
                result & POLLOUT ? fd : ARES_SOCKET_BAD);
}

static void arm_watch(struct watch *watch)
{
    int fd = watch->poll.fd;
    watch->poll = (struct io_op){
        .kind = IO_OP_POLL, .fd = fd, .events = watch->wanted, .done = polled, .owner = watch};
    io_submit(resolver.io, &watch->poll);
}

static struct watch *find_watch(int fd)
{
    list_for_each(node, &resolver.watches)
    {
        struct watch *watch = container_of(node, struct watch, link);
        if (watch->poll.fd == fd && watch->wanted)
            return watch;
    }
    return NULL;
}

/* c-ares tells what it waits for on a socket; neither: it is about to close it. */
static void socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    (void)data;
    short wanted = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    struct watch *watch = find_watch(fd);
    if (watch) {
        bool changed = watch->wanted != wanted;
        watch->wanted = wanted;
        if (changed)
            io_cancel(resolver.io, &watch->poll); /* its end re-arms it, or frees it */
        return;
    }
    if (!wanted)
        return;
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return; /* the query runs into its timeout */
    list_push_back(&resolver.watches, &watch->link);
    watch->wanted = wanted;
    watch->poll.fd = fd;
    arm_watch(watch);
}

static int start(struct io *io)
{
    if (resolver.ready)
        return 0;
    struct ares_options options = {
        .timeout = TRY_MS, .tries = TRIES, .sock_state_cb = socket_state};
    int given = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS ||
        ares_init_options(&resolver.channel, &options, given) != ARES_SUCCESS)
        return -ENOMEM;
    const char *servers = getenv(SERVERS_VARIABLE);
    if (servers && ares_set_servers_ports_csv(resolver.channel, servers) != ARES_SUCCESS)
        log_warn("%s=\"%s\" is not a list of name servers: ignored", SERVERS_VARIABLE, servers);
    resolver.io = io;
    list_init(&resolver.watches);
    timer_init(&resolver.timer, timed_out, NULL);
    resolver.ready = true;
    return 0;
}

static void answered(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    (void)timeouts;
    struct query *query = arg;
    if (query->abandoned) {
        if (found)
            ares_freeaddrinfo(found);
        free(query);
        return;
    }
    query->answered = true;
    query->status = status;
    query->found = found;
    if (query->coro)
        coro_wake(query->coro, 0);
}

static int error_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        return -ENOENT;
    case ARES_ETIMEOUT:
        return -ETIMEDOUT;
    case ARES_ENOMEM:
        return -ENOMEM;
    default:
        return -EHOSTUNREACH;
    }
}

static void shorten(unsigned *ttl_s, int seconds)
{
    if (seconds >= 0 && (unsigned)seconds < *ttl_s)
        *ttl_s = (unsigned)seconds;
}

static unsigned collect(const struct ares_addrinfo *found, struct address *out, unsigned max,
                        unsigned *ttl_s)
{
    unsigned count = 0;
    *ttl_s = UINT32_MAX;
    for (struct ares_addrinfo_node *node = found->nodes; node && count < max;
         node = node->ai_next) {
        if (node->ai_addrlen > sizeof(out->v6))
            continue;
        memcpy(&out[count].any, node->ai_addr, node->ai_addrlen);
        out[count++].len = node->ai_addrlen;
        shorten(ttl_s, node->ai_ttl);
    }
    /* A name that stands for another may soon stand for yet another. */
    for (const struct ares_addrinfo_cname *alias = found->cnames; alias; alias = alias->next)
        shorten(ttl_s, alias->ttl);
    return count;
}

static void set_port(struct address *address, uint16_t port)
{
    if (address->any.sa_family == AF_INET6)
        address->v6.sin6_port = htons(port);
    else
        address->v4.sin_port = htons(port);
}

/* Waits for the answer. Returns 0, or a negative errno after which the query is not ours. */
static int await(struct io *io, struct query *query, int64_t deadline)
{
    while (!query->answered) {
        query->coro = coro_self();
        int result = wait_wake(io, deadline);
        query->coro = NULL;
        if (result < 0 && !query->answered) {
            query->abandoned = true;
            return result;
        }
    }
    return 0;
}

int dns_resolve(struct io *io, const char *host, uint16_t port, struct address *out, unsigned max,
                unsigned *ttl_s, int64_t deadline)
{
    int result = start(io);
    struct query *query = result == 0 ? calloc(1, sizeof(*query)) : NULL;
    if (!query)
        return -ENOMEM;
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    ares_getaddrinfo(resolver.channel, host, NULL, &hints, answered, query);
    arm_timer();
    result = await(io, query, deadline);
    if (result < 0)
        return result;
    result = error_of(query->status);
    if (result == 0) {
        result = (int)collect(query->found, out, max, ttl_s);
        for (int i = 0; i < result; i++)
            set_port(&out[i], port);
        ares_freeaddrinfo(query->found);
    }
    free(query);
    return result;
}
