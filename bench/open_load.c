/*
 * Open-loop load of HTTP/1.1: requests are due by a schedule, whether or not earlier ones have been
 * answered, and the latency of each counts from when it was due. So a proxy that stops for a moment
 * is charged for all who would have come meanwhile (no coordinated omission).
 *
 *   schedule ──due──▶ a free connection ──request──▶ answered: latency = now - due
 *                     none free: the request waits, and its time runs
 *
 * usage: open_load PORT PATH CONNECTIONS SECONDS RATE (requests a second; 0: a request is due when
 * the one before it on its connection has been answered)
 *
 * Every answer must have status 200 and a Content-Length, and be complete. Prints a line: requests,
 * seconds, errors, percentiles and the longest latency. What is still not answered a while after
 * the end counts with the time it has taken so far.
 */
#include "loopback.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    INPUT_BYTES = 64 << 10,
    HEAD_BYTES_MAX = 4096,
    LATENCIES_MAX = 1 << 23,
    EVENTS_MAX = 256,
};

static const uint64_t STRAGGLERS_NS = 1000000000;
static const char HEAD_END[] = "\r\n\r\n", LENGTH_FIELD[] = "\r\ncontent-length:";

struct connection {
    int fd;
    bool busy;
    uint64_t due_ns; /* of the request that is under way */
    size_t head_len;
    size_t missing; /* of the answer's body; known once the head has been seen */
    bool in_body;
    char head[HEAD_BYTES_MAX + 1];
};

static struct connection connections[CONNECTIONS_MAX];
static struct connection *idle[CONNECTIONS_MAX];
static unsigned connection_count, idle_count;
static char request[512];
static size_t request_len;
static double interval_ns; /* between requests; 0: closed loop */
static uint64_t begin_ns, end_ns;
static uint64_t issued; /* requests of the schedule that have been sent */
static uint32_t *latencies_us;
static size_t answered, errors;
static int epoll;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void fail(const char *why)
{
    fprintf(stderr, "open_load: %s\n", why);
    exit(1);
}

static void count(uint64_t due_ns, uint64_t end)
{
    if (answered < LATENCIES_MAX)
        latencies_us[answered++] = (uint32_t)((end - due_ns) / 1000);
}

static void ask(struct connection *connection, uint64_t due_ns)
{
    connection->busy = true;
    connection->due_ns = due_ns;
    connection->head_len = 0;
    connection->in_body = false;
    if (send(connection->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
        fail("cannot send");
}

static uint64_t next_due_ns(void)
{
    return begin_ns + (uint64_t)((double)issued * interval_ns);
}

/* Sends what is due, as long as there are connections for it. */
static void issue(uint64_t now)
{
    while (idle_count > 0 && next_due_ns() <= now && next_due_ns() < end_ns) {
        ask(idle[--idle_count], next_due_ns());
        issued++;
    }
}

static void answer_ended(struct connection *connection)
{
    uint64_t now = now_ns();
    connection->busy = false;
    if (begin_ns != 0) /* no warm-up */
        count(connection->due_ns, now);
    if (begin_ns != 0 && interval_ns == 0 && now < end_ns)
        ask(connection, now);
    else
        idle[idle_count++] = connection;
}

/* Takes bytes of the head; returns how many of them belonged to it. */
static size_t take_head(struct connection *connection, const char *bytes, size_t len)
{
    size_t before = connection->head_len, room = HEAD_BYTES_MAX - before;
    size_t taken = len < room ? len : room;
    memcpy(connection->head + before, bytes, taken);
    connection->head_len += taken;
    connection->head[connection->head_len] = '\0';
    const char *end = strstr(connection->head, HEAD_END);
    if (!end) {
        if (connection->head_len == HEAD_BYTES_MAX)
            fail("an answer without an end of its head");
        return taken;
    }
    const char *length = strcasestr(connection->head, LENGTH_FIELD);
    if (strncmp(connection->head, "HTTP/1.1 200 ", 13) != 0 || !length || length > end)
        fail("an answer that is not 200 with a length");
    connection->missing = strtoul(length + strlen(LENGTH_FIELD), NULL, 10);
    connection->in_body = true;
    return (size_t)(end - connection->head) + strlen(HEAD_END) - before;
}

static void receive(struct connection *connection)
{
    static char input[INPUT_BYTES];
    ssize_t n = recv(connection->fd, input, sizeof(input), MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || !connection->busy)
        fail(n > 0 ? "an answer that nobody asked for" : "a connection ended");
    size_t len = (size_t)n, taken = connection->in_body ? 0 : take_head(connection, input, len);
    if (!connection->in_body)
        return;
    if (len - taken > connection->missing)
        fail("more than an answer");
    connection->missing -= len - taken;
    if (connection->missing == 0)
        answer_ended(connection);
}

/* Handles what comes until a time; a wait ends when the next request is due and could be sent. */
static void turn(uint64_t until_ns)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t now = now_ns(), wake_ns = until_ns;
    if (interval_ns > 0 && begin_ns != 0 && idle_count > 0 && next_due_ns() < wake_ns)
        wake_ns = next_due_ns();
    uint64_t wait_ns = wake_ns > now ? wake_ns - now : 0;
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                            .tv_nsec = (long)(wait_ns % 1000000000)};
    int ready = epoll_pwait2(epoll, events, EVENTS_MAX, &wait, NULL);
    for (int i = 0; i < ready; i++)
        receive(events[i].data.ptr);
}

static void open_connection(struct connection *connection, struct sockaddr_in address)
{
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)))
        fail("cannot connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event))
        fail("no event");
}

/* A request on each connection, so that what is made once is made: that of the proxy's upstream,
 * too. */
static void warm_up(void)
{
    uint64_t give_up_ns = now_ns() + 5 * STRAGGLERS_NS;
    for (unsigned i = 0; i < connection_count; i++)
        ask(&connections[i], now_ns());
    while (idle_count < connection_count) {
        turn(give_up_ns);
        if (now_ns() >= give_up_ns)
            fail("no answer");
    }
}

static void run(uint64_t duration_ns)
{
    uint64_t now = now_ns();
    begin_ns = now;
    end_ns = now + duration_ns;
    if (interval_ns == 0)
        while (idle_count > 0)
            ask(idle[--idle_count], now);
    for (; now < end_ns; now = now_ns()) {
        if (interval_ns > 0)
            issue(now);
        turn(end_ns);
    }
    /* Those that are due and found no connection, and those under way. */
    for (; now < end_ns + STRAGGLERS_NS &&
           (idle_count < connection_count || (interval_ns > 0 && next_due_ns() < end_ns));
         now = now_ns()) {
        if (interval_ns > 0)
            issue(now);
        turn(end_ns + STRAGGLERS_NS);
    }
    for (unsigned i = 0; i < connection_count; i++)
        if (connections[i].busy) {
            count(connections[i].due_ns, now);
            errors++;
        }
    for (; interval_ns > 0 && next_due_ns() < end_ns; issued++, errors++)
        count(next_due_ns(), now);
}

static int by_value(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static uint32_t part(double share)
{
    return latencies_us[(size_t)((double)(answered - 1) * share)];
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: open_load PORT PATH CONNECTIONS SECONDS RATE\n");
        return 2;
    }
    connection_count = (unsigned)strtoul(argv[3], NULL, 10);
    if (connection_count == 0 || connection_count > CONNECTIONS_MAX)
        fail("CONNECTIONS is 1 to 1024");
    double rate = strtod(argv[5], NULL);
    interval_ns = rate > 0 ? 1e9 / rate : 0;
    request_len = (size_t)snprintf(
        request, sizeof(request),
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Bench: from the client\r\n\r\n", argv[2]);
    latencies_us = malloc(LATENCIES_MAX * sizeof(*latencies_us));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    assert(request_len < sizeof(request) && latencies_us && epoll >= 0);
    prctl(PR_SET_TIMERSLACK, 1); /* waits end when they should, not up to 50 us later */

    for (unsigned i = 0; i < connection_count; i++)
        open_connection(&connections[i], loopback_address((uint16_t)strtoul(argv[1], NULL, 10)));
    warm_up();
    run((uint64_t)(strtod(argv[4], NULL) * 1e9));
    if (answered == 0)
        fail("no request was answered");
    qsort(latencies_us, answered, sizeof(*latencies_us), by_value);
    printf("requests %zu seconds %.6f errors %zu p50_us %u p99_us %u p999_us %u max_us %u\n",
           answered, (double)(end_ns - begin_ns) / 1e9, errors, part(0.5), part(0.99), part(0.999),
           part(1));
    return 0;
}
