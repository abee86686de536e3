/*
 * Load for proxies of layer 4, with bench/tcp_origin behind them:
 *
 *   messages   each connection sends a message, waits until it has come back, sends the next one
 *   bulk       each connection reads what the origin sends without end; a request is 10^6 bytes
 *   connects   connects, one message there and back, closes; then the next connection
 *
 * usage: tcp_load PORT messages|bulk|connects CONNECTIONS SECONDS
 *
 * Looks at what comes: an echo must be the message, bulk must go on where it ended. Prints a line:
 * requests, seconds, errors, and but for bulk the latency of a request.
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
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    MESSAGE_BYTES = 96,
    READ_BYTES = 256 << 10,
    CYCLE = 251, /* of the origin's bulk */
    LATENCIES_MAX = 1 << 21,
    EVENT_WAIT_MS = 100,
    FATAL_ERRORS = 100, /* more say nothing new */
};

struct connection {
    int fd;
    uint64_t began_us;
    uint64_t number;   /* of its messages */
    size_t received;   /* of the present echo */
    unsigned expected; /* bulk: the next byte */
    bool connecting;
    char message[MESSAGE_BYTES];
};

static enum { MESSAGES, BULK, CONNECTS } mode;
static struct sockaddr_in address;
static struct connection connections[CONNECTIONS_MAX];
static int epoll;
static uint64_t requests, errors, bytes;
static uint32_t latencies[LATENCIES_MAX];
static uint32_t latency_count;
static unsigned char input[READ_BYTES];

static void open_connection(struct connection *connection);

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void watch(struct connection *connection, int how, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    int failed = epoll_ctl(epoll, how, connection->fd, &event);
    assert(!failed);
}

static void fail(struct connection *connection, const char *why)
{
    fprintf(stderr, "tcp_load: %s: %s\n", why, strerror(errno));
    if (++errors >= FATAL_ERRORS)
        exit(1);
    close(connection->fd);
    open_connection(connection);
}

static void send_message(struct connection *connection)
{
    connection->number++;
    connection->received = 0;
    memset(connection->message, 'e', sizeof(connection->message));
    memcpy(connection->message + 8, &connection->number, sizeof(connection->number));
    if (mode != CONNECTS)
        connection->began_us = now_us();
    if (send(connection->fd, connection->message, MESSAGE_BYTES, MSG_NOSIGNAL) != MESSAGE_BYTES)
        fail(connection, "send");
}

static void start(struct connection *connection)
{
    connection->connecting = false;
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    if (mode != BULK)
        send_message(connection);
    else if (send(connection->fd, "b", 1, MSG_NOSIGNAL) != 1)
        fail(connection, "send");
}

static void open_connection(struct connection *connection)
{
    *connection = (struct connection){
        .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
        .began_us = now_us(),
        .number = connection->number,
        .connecting = true,
    };
    assert(connection->fd >= 0);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) &&
        errno != EINPROGRESS) {
        perror("tcp_load: connect");
        exit(1);
    }
    watch(connection, EPOLL_CTL_ADD, EPOLLOUT);
}

static void count_request(struct connection *connection)
{
    requests++;
    if (latency_count < LATENCIES_MAX)
        latencies[latency_count++] = (uint32_t)(now_us() - connection->began_us);
}

static void take_echo(struct connection *connection, size_t count)
{
    if (connection->received + count > MESSAGE_BYTES ||
        memcmp(input, connection->message + connection->received, count) != 0) {
        fail(connection, "not what was sent");
        return;
    }
    connection->received += count;
    if (connection->received < MESSAGE_BYTES)
        return;
    count_request(connection);
    if (mode == MESSAGES) {
        send_message(connection);
        return;
    }
    close(connection->fd);
    open_connection(connection);
}

/* Looking at the first and the last byte finds whatever is lost, doubled or in the wrong place. */
static void take_bulk(struct connection *connection, size_t count)
{
    unsigned last = (unsigned)((connection->expected + count - 1) % CYCLE);
    if (input[0] != connection->expected || input[count - 1] != last) {
        fail(connection, "not what was sent");
        return;
    }
    bytes += count;
    connection->expected = (last + 1) % CYCLE;
}

static void receive(struct connection *connection)
{
    ssize_t count = recv(connection->fd, input, sizeof(input), 0);
    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0)
        fail(connection, count ? "receive" : "closed");
    else if (mode == BULK)
        take_bulk(connection, (size_t)count);
    else
        take_echo(connection, (size_t)count);
}

static void run_until(uint64_t end_us)
{
    struct epoll_event events[256];
    while (now_us() < end_us) {
        int count = epoll_wait(epoll, events, 256, EVENT_WAIT_MS);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection->connecting)
                start(connection);
            else
                receive(connection);
        }
    }
}

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    unsigned count = argc == 5 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    if (count == 0 || count > CONNECTIONS_MAX) {
        fprintf(stderr, "usage: tcp_load PORT messages|bulk|connects CONNECTIONS SECONDS\n");
        return 2;
    }
    address = loopback_address((uint16_t)strtoul(argv[1], NULL, 10));
    mode = !strcmp(argv[2], "bulk") ? BULK : !strcmp(argv[2], "connects") ? CONNECTS : MESSAGES;
    epoll = epoll_create1(0);
    uint64_t begin_us = now_us();
    for (unsigned i = 0; i < count; i++)
        open_connection(&connections[i]);
    run_until(begin_us + (uint64_t)(strtod(argv[4], NULL) * 1e6));
    double seconds = (double)(now_us() - begin_us) / 1e6;
    if (mode == BULK)
        requests = bytes / 1000000;
    printf("requests %lu seconds %.3f errors %lu", requests, seconds, errors);
    if (latency_count) {
        qsort(latencies, latency_count, sizeof(latencies[0]), compare);
        printf(" p50_us %u p99_us %u", latencies[latency_count / 2],
               latencies[(size_t)latency_count * 99 / 100]);
    }
    printf("\n");
    return errors != 0;
}
