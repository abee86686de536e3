/*
 * The floor of the benchmark: the least that a proxy can do. Each client connection has an upstream
 * connection of its own, and what comes on one is sent on the other as it came: no message is
 * looked at, there are no timeouts, no limits, no errors that are told. It shows what the kernel's
 * part of the work costs, and is good for nothing else.
 *
 *   io_uring   floor_uring.c: receives that go on by themselves into shared buffers
 *   epoll      floor_epoll.c: recv, send
 *   splice     floor_epoll.c: bytes go through a pipe and are never copied to us
 *
 * usage: floor PORT UPSTREAM_PORT io_uring|epoll|splice
 */
#include "floor.h"
#include "loopback.h"

#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>

static struct sockaddr_in upstream_address;

int floor_connect(int client)
{
    int upstream = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(upstream, (struct sockaddr *)&upstream_address, sizeof(upstream_address))) {
        perror("floor: connect");
        exit(1);
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(upstream, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return upstream;
}

int main(int argc, char **argv)
{
    const char *kind = argc == 4 ? argv[3] : "";
    if (strcmp(kind, "io_uring") != 0 && strcmp(kind, "epoll") != 0 &&
        strcmp(kind, "splice") != 0) {
        fprintf(stderr, "usage: floor PORT UPSTREAM_PORT io_uring|epoll|splice\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* splice knows no MSG_NOSIGNAL */
    upstream_address = loopback_address((uint16_t)strtoul(argv[2], NULL, 10));
    bool uring = strcmp(kind, "io_uring") == 0;
    int listener =
        loopback_listen((uint16_t)strtoul(argv[1], NULL, 10), uring ? 0 : SOCK_NONBLOCK, 0);
    if (uring)
        floor_uring(listener);
    else
        floor_epoll(listener, strcmp(kind, "splice") == 0);
}
