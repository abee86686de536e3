/*
 * A static HTTP/1.1 origin for the benchmark: one process, epoll, fixed bodies at /128, /1k, /16k
 * and /1m, one of 128 bytes that ends its connection at /bye, everything else is 404. It knows
 * nothing of HTTP but where a request without a body ends, so that it costs less than any proxy in
 * front of it.
 *
 * usage: origin PORT [any]
 *
 * PORT 0 is a free one; it prints the port that it listens on. With "any" it is there at every
 * address of 127.0.0.0/8, as if it were many.
 */
#include "loopback.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT_BYTES_MAX = 8192, EVENTS_MAX = 256, FD_MAX = 16384 };

struct response {
    const char *request_line; /* as it starts */
    char *bytes;              /* head and body */
    size_t len;
    bool closes; /* the connection, afterwards */
};

struct connection {
    int fd; /* its index in `connections` */
    size_t input_len;
    const struct response *sending; /* NULL when waiting for a request */
    size_t sent;
    char input[INPUT_BYTES_MAX];
};

static struct response responses[] = {
    {.request_line = "GET /128 "}, {.request_line = "GET /bye ", .closes = true},
    {.request_line = "GET /1k "},  {.request_line = "GET /16k "},
    {.request_line = "GET /1m "},
};
static struct response not_found;
static struct connection connections[FD_MAX];

static void prepare(struct response *response, const char *status, size_t body_bytes)
{
    char head[256];
    int head_len =
        snprintf(head, sizeof(head),
                 "HTTP/1.1 %s\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                 "Content-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n",
                 status, body_bytes, response->closes ? "Connection: close\r\n" : "");
    response->len = (size_t)head_len + body_bytes;
    response->bytes = malloc(response->len);
    assert(response->bytes);
    memcpy(response->bytes, head, (size_t)head_len);
    memset(response->bytes + head_len, 'x', body_bytes);
}

static const struct response *answer_to(const char *input)
{
    for (size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
        const char *line = responses[i].request_line;
        if (strncmp(input, line, strlen(line)) == 0)
            return &responses[i];
    }
    return &not_found;
}

/* Takes one complete request out of the input. */
static bool next_request(struct connection *connection)
{
    char *end = memmem(connection->input, connection->input_len, "\r\n\r\n", 4);
    if (!end)
        return false;
    connection->sending = answer_to(connection->input);
    connection->sent = 0;
    end += 4;
    connection->input_len -= (size_t)(end - connection->input);
    memmove(connection->input, end, connection->input_len);
    return true;
}

/* 1 when all is sent, 0 when the socket is full, -1 on an error or when that was the last. */
static int send_rest(struct connection *connection)
{
    const struct response *response = connection->sending;
    while (connection->sent < response->len) {
        ssize_t n = send(connection->fd, response->bytes + connection->sent,
                         response->len - connection->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        connection->sent += (size_t)n;
    }
    connection->sending = NULL;
    return response->closes ? -1 : 1;
}

/* Answers and reads until there is nothing more to read. False: the connection is over. */
static bool serve(struct connection *connection)
{
    bool drained = false;
    for (;;) {
        if (connection->sending || next_request(connection)) {
            int outcome = send_rest(connection);
            if (outcome <= 0)
                return outcome == 0;
            continue;
        }
        if (drained)
            return true;
        size_t room = sizeof(connection->input) - connection->input_len;
        ssize_t n = recv(connection->fd, connection->input + connection->input_len, room, 0);
        if (n <= 0)
            return n < 0 && room > 0 && errno == EAGAIN;
        connection->input_len += (size_t)n;
        drained = (size_t)n < room; /* what comes later makes an event of its own */
    }
}

static void accept_all(int listener, int epoll)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        assert(fd < FD_MAX);
        connections[fd] = (struct connection){.fd = fd};
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
        int failed = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        assert(!failed);
    }
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
    prepare(&responses[0], "200 OK", 128);
    prepare(&responses[1], "200 OK", 128);
    prepare(&responses[2], "200 OK", 1 << 10);
    prepare(&responses[3], "200 OK", 16 << 10);
    prepare(&responses[4], "200 OK", 1 << 20);
    prepare(&not_found, "404 Not Found", 0);

    int listener = loopback_listen((uint16_t)(argc > 1 ? strtoul(argv[1], NULL, 10) : 0),
                                   SOCK_NONBLOCK, argc > 2);
    print_port(listener);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) {
        perror("origin");
        return 1;
    }

    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener, epoll);
            else if (!serve(&connections[fd]))
                close(fd);
        }
    }
}
