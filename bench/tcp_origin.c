/*
 * An origin without a protocol for the benchmark of layer 4: one process, epoll. The first byte of
 * a connection says what it does: 'e' sends everything back, 'b' is answered by bytes without end,
 * counted modulo 251, until the client goes.
 *
 * usage: tcp_origin PORT (0: a free one). Prints the port that it listens on.
 */
#include "loopback.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, FD_MAX = 16384, CYCLE = 251, PIECE_BYTES = 256 << 10 };

static struct connection {
    bool bulk;
    unsigned offset; /* bulk: of the next byte in the cycle */
} connections[FD_MAX];
static char cycles[PIECE_BYTES + CYCLE];

/* What does not fit into the socket is lost with the connection: no client has that much pending.
 */
static bool echo(int fd)
{
    char bytes[64 << 10];
    ssize_t count = recv(fd, bytes, sizeof(bytes), 0);
    if (count > 0 && bytes[0] == 'b')
        connections[fd].bulk = true;
    else if (count > 0)
        return send(fd, bytes, (size_t)count, MSG_NOSIGNAL) == count;
    return count > 0 || (count < 0 && errno == EAGAIN);
}

/* One piece at a time, so that all connections get their share. */
static bool flood(int fd)
{
    struct connection *connection = &connections[fd];
    ssize_t count = send(fd, cycles + connection->offset, PIECE_BYTES, MSG_NOSIGNAL);
    if (count > 0)
        connection->offset = (connection->offset + (unsigned)count) % CYCLE;
    return count > 0 || errno == EAGAIN;
}

static void watch(int epoll, int how, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    int failed = epoll_ctl(epoll, how, fd, &event);
    assert(!failed);
}

static void accept_all(int listener, int epoll)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        assert(fd < FD_MAX);
        connections[fd] = (struct connection){0};
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void serve(int epoll, int fd)
{
    struct connection *connection = &connections[fd];
    bool was_bulk = connection->bulk;
    if (!(was_bulk ? flood(fd) : echo(fd)))
        close(fd);
    else if (connection->bulk && !was_bulk)
        watch(epoll, EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void print_port(int listener)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof(address);
    int failed = getsockname(listener, (struct sockaddr *)&address, &len);
    assert(!failed);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(cycles); i++)
        cycles[i] = (char)(i % CYCLE);
    int listener =
        loopback_listen((uint16_t)(argc > 1 ? strtoul(argv[1], NULL, 10) : 0), SOCK_NONBLOCK, 0);
    print_port(listener);
    int epoll = epoll_create1(0);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN);

    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener, epoll);
            else
                serve(epoll, fd);
        }
    }
}
