/*
 * The floor on epoll: sockets are registered once, for edges; what one has is received and sent at
 * once, or goes through a pipe (splice). What the other side does not take waits, and nothing more
 * is received before it is gone.
 */
#include "floor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, PIECE_BYTES = 256 << 10, PIPE_BYTES = 512 << 10 };

struct flow {
    int from, to;
    int pipe[2];   /* splicing only */
    size_t held;   /* bytes that `to` has not taken yet, in the pipe or below */
    size_t offset; /* of these in `bytes` */
    char *bytes;
};

struct pair {
    struct flow up, down;
    bool over;
    struct pair *next_over; /* freed after the turn, for more events may name it */
};

static bool splicing;
static int epoll;
static struct pair *over;
static char piece[PIECE_BYTES];

/* 1: nothing is held any more, 0: the socket is full, -1: it is over. */
static int push_pipe(struct flow *flow)
{
    while (flow->held > 0) {
        ssize_t n = splice(flow->pipe[0], NULL, flow->to, NULL, flow->held,
                           SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (n <= 0)
            return n < 0 && errno == EAGAIN ? 0 : -1;
        flow->held -= (size_t)n;
    }
    return 1;
}

static bool forward_by_pipe(struct flow *flow)
{
    for (;;) {
        int pushed = push_pipe(flow);
        if (pushed <= 0)
            return pushed == 0;
        ssize_t n = splice(flow->from, NULL, flow->pipe[1], NULL, PIPE_BYTES,
                           SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        flow->held = (size_t)n;
    }
}

static int push_bytes(struct flow *flow)
{
    while (flow->held > 0) {
        ssize_t n = send(flow->to, flow->bytes + flow->offset, flow->held, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        flow->held -= (size_t)n;
        flow->offset += (size_t)n;
    }
    return 1;
}

static void hold(struct flow *flow, size_t sent, size_t len)
{
    if (!flow->bytes)
        flow->bytes = malloc(PIECE_BYTES);
    assert(flow->bytes);
    flow->offset = 0;
    flow->held = len - sent;
    memcpy(flow->bytes, piece + sent, flow->held);
}

/* A receive that leaves room has taken all there was: what comes later is an edge of its own. */
static bool forward_by_copy(struct flow *flow)
{
    for (;;) {
        int pushed = push_bytes(flow);
        if (pushed <= 0)
            return pushed == 0;
        ssize_t n = recv(flow->from, piece, sizeof(piece), 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        ssize_t sent = send(flow->to, piece, (size_t)n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < n)
            hold(flow, sent > 0 ? (size_t)sent : 0, (size_t)n);
        else if ((size_t)n < sizeof(piece))
            return true;
    }
}

static bool forward(struct flow *flow)
{
    return splicing ? forward_by_pipe(flow) : forward_by_copy(flow);
}

static void watch(int fd, struct pair *pair, bool client)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                .data.u64 = (uintptr_t)pair | client};
    int failed = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    assert(!failed);
}

static struct flow make_flow(int from, int to)
{
    struct flow flow = {.from = from, .to = to, .pipe = {-1, -1}};
    if (splicing) {
        int failed = pipe2(flow.pipe, O_NONBLOCK);
        assert(!failed);
        fcntl(flow.pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    }
    return flow;
}

static void open_pair(int client)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    assert(pair);
    int upstream = floor_connect(client);
    pair->up = make_flow(client, upstream);
    pair->down = make_flow(upstream, client);
    watch(client, pair, true);
    watch(upstream, pair, false);
}

static void end_pair(struct pair *pair)
{
    pair->over = true;
    pair->next_over = over;
    over = pair;
}

static void close_flow(struct flow *flow)
{
    close(flow->from);
    if (splicing) {
        close(flow->pipe[0]);
        close(flow->pipe[1]);
    }
    free(flow->bytes);
}

static void free_over(void)
{
    while (over) {
        struct pair *pair = over;
        over = pair->next_over;
        close_flow(&pair->up);
        close_flow(&pair->down);
        free(pair);
    }
}

static void handle(const struct epoll_event *event)
{
    struct pair *pair = (struct pair *)(event->data.u64 & ~(uintptr_t)1);
    bool client = event->data.u64 & 1;
    if (pair->over)
        return;
    struct flow *reads = client ? &pair->up : &pair->down,
                *writes = client ? &pair->down : &pair->up;
    bool goes_on = !(event->events & EPOLLIN) || forward(reads);
    if (goes_on && (event->events & EPOLLOUT) && writes->held > 0)
        goes_on = forward(writes);
    if (!goes_on)
        end_pair(pair);
}

static void accept_all(int listener)
{
    int client;
    while ((client = accept(listener, NULL, NULL)) >= 0)
        open_pair(client);
}

void floor_epoll(int listener, bool by_splice)
{
    splicing = by_splice;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) {
        perror("floor: epoll");
        exit(1);
    }
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                handle(&events[i]);
            else
                accept_all(listener);
        }
        free_over();
    }
}
