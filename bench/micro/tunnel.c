/*
 * What a tunnel costs: CPU of one loop with tunnels over loopback, whose two ends are a child
 * process on the other core. Small messages go there and back and are counted; bulk goes one way.
 * Modes take turns, so that whatever changes on the machine meets all; prints their medians.
 *
 * usage: bench-tunnel messages|bulk [SIZE [CONNECTIONS [ROUNDS [PIPE_KIB [BUFFER_KIB]]]]]
 *        SIZE: of one message, or of one write of bulk
 */
#include "base/clock.h"
#include "coro/coro.h"
#include "net/tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WINDOW_MS = 400, ROUNDS_MAX = 99, CONNECTIONS_MAX = 1024, READ_BYTES = 256 << 10 };

static const struct mode {
    const char *name;
    enum io_kind kind;
    bool copy_only;
} modes[] = {
    {"io_uring copy", IO_KIND_URING, true},
    {"io_uring auto", IO_KIND_URING, false},
    {"epoll copy", IO_KIND_EPOLL, true},
    {"epoll auto", IO_KIND_EPOLL, false},
};
enum { MODES = sizeof(modes) / sizeof(modes[0]) };

static bool bulk;
static size_t size_bytes = 128;
static unsigned connections = 64;
static uint32_t pipe_kib, buffer_kib;
static char bytes[READ_BYTES];

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* --- The ends --------------------------------------------------------------------------------- */

static void watch(int epoll, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Messages: whatever comes is sent back, from both ends, for ever. Bulk: clients write, peers read.
 */
static void run_ends(const int *clients, const int *peers)
{
    int epoll = epoll_create1(0);
    for (unsigned i = 0; i < connections; i++) {
        watch(epoll, clients[i], bulk ? EPOLLOUT : EPOLLIN);
        watch(epoll, peers[i], EPOLLIN);
        if (!bulk)
            send(clients[i], bytes, size_bytes, MSG_NOSIGNAL);
    }
    struct epoll_event events[256];
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            ssize_t moved = events[i].events & EPOLLOUT ? send(fd, bytes, size_bytes, MSG_NOSIGNAL)
                                                        : recv(fd, bytes, sizeof(bytes), 0);
            if (moved == 0 || (moved < 0 && errno != EAGAIN))
                _exit(0);
            if (!bulk)
                send(fd, bytes, (size_t)moved, MSG_NOSIGNAL);
        }
    }
}

static void connect_pair(int listener, const struct sockaddr_in *address, int fds[2])
{
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    (void)!connect(fds[0], (const struct sockaddr *)address, sizeof(*address));
    fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fds[1] < 0) {
        perror("accept");
        exit(1);
    }
}

static int listen_here(struct sockaddr_in *address)
{
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)address, len) || listen(fd, 16) ||
        getsockname(fd, (struct sockaddr *)address, &len)) {
        perror("listen");
        exit(1);
    }
    return fd;
}

/* --- The tunnels ------------------------------------------------------------------------------ */

static struct stream streams[2 * CONNECTIONS_MAX];
static unsigned open_tunnels;

static void done(const struct tunnel_result *result, void *owner)
{
    (void)result;
    (void)owner;
    open_tunnels--;
}

static double cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void turn_for(struct io *io, int64_t ms)
{
    int64_t until_ms = clock_now_ms() + ms;
    while (clock_now_ms() < until_ms) {
        io_turn(io, 10);
        coro_run_ready();
    }
}

static uint64_t received(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < connections; i++)
        sum += streams[2 * i].bytes_in;
    return sum;
}

static int clients[CONNECTIONS_MAX], peers[CONNECTIONS_MAX];
static struct tunnel *tunnels[CONNECTIONS_MAX];

static void open_streams(struct io *io)
{
    struct sockaddr_in address;
    int listener = listen_here(&address);
    for (unsigned i = 0; i < connections; i++) {
        int client[2], peer[2];
        connect_pair(listener, &address, client);
        connect_pair(listener, &address, peer);
        clients[i] = client[0];
        peers[i] = peer[0];
        stream_init(&streams[2 * i], io, client[1]);
        stream_init(&streams[2 * i + 1], io, peer[1]);
    }
    close(listener);
}

static pid_t start_ends(void)
{
    pid_t child = fork();
    if (child == 0) {
        pin(1);
        run_ends(clients, peers);
    }
    for (unsigned i = 0; i < connections; i++) {
        close(clients[i]);
        close(peers[i]);
    }
    return child;
}

static void start_tunnels(const struct tunnel_options *how)
{
    for (unsigned i = 0; i < connections; i++) {
        stream_start(&streams[2 * i]);
        stream_start(&streams[2 * i + 1]);
        tunnels[i] = tunnel_start(&streams[2 * i], &streams[2 * i + 1], how, done, NULL);
        open_tunnels++;
    }
}

static void end_all(struct io *io, pid_t child)
{
    for (unsigned i = 0; i < connections; i++)
        tunnel_cancel(tunnels[i]);
    while (open_tunnels)
        turn_for(io, 1);
    turn_for(io, 5);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    io_destroy(io);
}

/* Returns CPU microseconds per message (there and back are two), or per megabyte of bulk. */
static double window(const struct mode *mode)
{
    struct io *io;
    struct io_options options = {
        .kind = mode->kind, .pipe_bytes = pipe_kib << 10, .buffer_bytes = buffer_kib << 10};
    if (io_create(&io, &options) < 0)
        exit(1);
    open_streams(io);
    pid_t child = start_ends();
    start_tunnels(
        &(struct tunnel_options){.deadline = DEADLINE_NEVER, .copy_only = mode->copy_only});
    turn_for(io, WINDOW_MS / 4);
    uint64_t bytes_before = received();
    double cpu_before = cpu_us();
    turn_for(io, WINDOW_MS);
    double used_us = cpu_us() - cpu_before;
    double units = (double)(received() - bytes_before) / (bulk ? 1e6 : (double)size_bytes / 2);
    end_all(io, child);
    return used_us / units;
}

static int compare(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
    static double found[MODES][ROUNDS_MAX];
    unsigned rounds = argc > 4 ? (unsigned)atoi(argv[4]) : 9;
    bulk = argc > 1 && strcmp(argv[1], "bulk") == 0;
    size_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : bulk ? 65536 : 128;
    connections = argc > 3 ? (unsigned)atoi(argv[3]) : bulk ? 8 : 64;
    pipe_kib = argc > 5 ? (uint32_t)atoi(argv[5]) : 0;
    buffer_kib = argc > 6 ? (uint32_t)atoi(argv[6]) : 0;
    if (connections > CONNECTIONS_MAX || size_bytes > READ_BYTES || rounds > ROUNDS_MAX)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    pin(0);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < MODES; i++)
            found[i][round] = window(&modes[i]);
    for (unsigned i = 0; i < MODES; i++) {
        qsort(found[i], rounds, sizeof(double), compare);
        printf("%-14s %8.2f %s (%.2f to %.2f)\n", modes[i].name, found[i][rounds / 2],
               bulk ? "us/MB" : "us/message", found[i][0], found[i][rounds - 1]);
    }
    coro_fini();
    return 0;
}
