/*
 * The epoll back end, for kernels without io_uring. Edge-triggered: a descriptor is registered when
 * an operation first has to wait for it and stays so until it is closed; what was learnt about its
 * readiness is kept in a slot by descriptor number.
 *
 *   submit ─▶ tried (sends: many at once)    ─▶ deferred ────────────▶ done
 *                  │ would block                                        ▲
 *                  └▶ in its slot ─ event ─▶ runnable ─▶ performed ─────┘
 *                          ▲                             │ would block
 *                          └─────────────────────────────┘
 *
 * Work on one descriptor in one turn is bounded; an operation with more to do stays runnable.
 */
#include "io/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,    /* fetched by one epoll_wait */
    RECV_BURST = 4,      /* receives on one descriptor in one turn */
    DATAGRAM_BURST = 8,  /* of DATAGRAM_BATCH at a time */
    DATAGRAM_BATCH = 32, /* datagrams that one call of the kernel receives or sends */
    ACCEPT_BURST = 64,   /* accepted connections of one listener in one turn */
    SLOTS_FIRST = 1024,  /* descriptors that the table holds at first */
};

#define HANGUP_EVENTS  (EPOLLRDHUP | EPOLLHUP | EPOLLERR)
#define RECEIVE_EVENTS (EPOLLIN | EPOLLPRI | EPOLLRDHUP)

/* What is known of one descriptor. */
struct slot {
    struct io_op *in;    /* the receive or accept in flight */
    struct io_op *out;   /* connects and sends that wait to go on, oldest first */
    struct io_op *polls; /* polls in flight */
    uint32_t watched;    /* events it is registered for; 0: not registered */
    uint32_t generation; /* tells late events of a closed descriptor from those of its successor */
    bool readable;       /* an edge came and the descriptor has not been read empty since */
    bool to_the_end;     /* the peer has shut down, or urgent data have come, at which a receive
                            stops: it is to be read empty, for no edge will follow */
};

struct epoll {
    int fd;
    bool polled; /* the last turn asked the kernel */
    struct slot *slots;
    size_t slot_count;
    struct list runnable; /* operations that may make progress */
    struct list unsent;   /* sends that were not tried yet */
    struct epoll_event events[EVENTS_MAX];
};

static int create(struct io *io, const struct io_options *options);
static void destroy(struct io *io);
static int turn(struct io *io, int64_t wait_ms);
static void submit(struct io *io, struct io_op *op);
static void cancel(struct io *io, struct io_op *op);
static void close_fd(struct io *io, int fd);
static void unwatch_fd(struct io *io, int fd);

static struct slot *slot_of(struct epoll *epoll, int fd);
static int watch(struct epoll *epoll, int fd, uint32_t events, bool again);
static void unwatch_if_idle(struct epoll *epoll, int fd);
static void forget(struct slot *slot);
static void note_event(struct epoll *epoll, const struct epoll_event *event);
static void perform(struct io *io, struct io_op *op);
static void leave_slot(struct epoll *epoll, struct io_op *op);
static bool try_send(struct io_op *op);
static bool try_send_to(struct io_op *op);
static void send_datagrams(struct io *io);

const struct io_backend epoll_backend = {
    .name = "epoll",
    .create = create,
    .destroy = destroy,
    .turn = turn,
    .submit = submit,
    .cancel = cancel,
    .close_fd = close_fd,
    .unwatch_fd = unwatch_fd,
};

static int create(struct io *io, const struct io_options *options)
{
    (void)options;
    struct epoll *epoll = calloc(1, sizeof(*epoll));
    if (!epoll)
        return -ENOMEM;
    epoll->fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll->fd < 0) {
        int result = -errno;
        free(epoll);
        return result;
    }
    list_init(&epoll->runnable);
    list_init(&epoll->unsent);
    io->impl = epoll;
    return 0;
}

static void destroy(struct io *io)
{
    struct epoll *epoll = io->impl;
    close(epoll->fd);
    if (epoll->slots)
        munmap(epoll->slots, epoll->slot_count * sizeof(*epoll->slots));
    free(epoll);
}

static void make_runnable(struct epoll *epoll, struct io_op *op)
{
    if (list_empty(&op->state.link))
        list_push_back(&epoll->runnable, &op->state.link);
}

/* Receives that waited for a buffer go on, no more at a time than there are buffers. */
static void unpark(struct epoll *epoll, struct list *parked, const struct bufpool *pool)
{
    uint64_t room = bufpool_room(pool);
    while (room-- && !list_empty(parked)) {
        struct io_op *op = container_of(parked->next, struct io_op, state.link);
        list_remove(&op->state.link);
        op->state.parked = false;
        make_runnable(epoll, op);
    }
}

/* All that was submitted meanwhile is sent at once, so that the kernel's code and this program's do
 * not drive each other out of the caches at each send. */
static void send_all(struct io *io, struct epoll *epoll)
{
    while (!list_empty(&epoll->unsent)) {
        struct io_op *op = container_of(epoll->unsent.next, struct io_op, state.link);
        list_remove(&op->state.link);
        bool ended = try_send(op);
        int result =
            ended ? op->state.result : watch(epoll, op->fd, RECEIVE_EVENTS | EPOLLOUT, false);
        if (!ended && result == 0)
            continue;
        leave_slot(epoll, op);
        io_defer(io, op, result);
    }
}

static int poll_kernel(struct io *io, struct epoll *epoll, int64_t wait_ms)
{
    int timeout_ms = wait_ms > INT32_MAX ? INT32_MAX : (int)wait_ms;
    int count = epoll_wait(epoll->fd, epoll->events, EVENTS_MAX, timeout_ms);
    io->stats.turns++;
    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++)
        note_event(epoll, &epoll->events[i]);
    return 0;
}

static int turn(struct io *io, int64_t wait_ms)
{
    struct epoll *epoll = io->impl;
    unpark(epoll, &io->parked, &io->pool);
    unpark(epoll, &io->parked_datagrams, &io->datagrams);
    io_await_memory(io, &wait_ms);
    send_all(io, epoll);
    send_datagrams(io);
    /* While there is work at hand the kernel is asked in every second turn only. */
    bool work = !list_empty(&epoll->runnable) || !list_empty(&io->deferred);
    int result = 0;
    epoll->polled = !(work && epoll->polled);
    io->asked_kernel = epoll->polled;
    if (epoll->polled)
        result = poll_kernel(io, epoll, work ? 0 : wait_ms);
    io_tick(io);

    struct list runnable;
    list_move_all(&runnable, &epoll->runnable);
    while (!list_empty(&runnable)) {
        struct io_op *op = container_of(runnable.next, struct io_op, state.link);
        list_remove(&op->state.link);
        perform(io, op);
    }
    send_all(io, epoll); /* what was submitted by those that were called back: ends in this turn */
    return result;
}

static void append(struct io_op **head, struct io_op *op)
{
    while (*head)
        head = &(*head)->state.peer;
    op->state.peer = NULL;
    *head = op;
}

static void take_out(struct io_op **head, struct io_op *op)
{
    while (*head && *head != op)
        head = &(*head)->state.peer;
    if (*head)
        *head = op->state.peer;
}

static void submit_in(struct io *io, struct slot *slot, struct io_op *op)
{
    assert(!slot->in); /* one reader a descriptor */
    slot->in = op;
    if (slot->readable) {
        make_runnable(io->impl, op);
        return;
    }
    int result = watch(io->impl, op->fd, RECEIVE_EVENTS, false);
    if (result < 0) {
        slot->in = NULL;
        io_defer(io, op, result);
    }
}

static void wait_writable(struct io *io, struct slot *slot, struct io_op *op)
{
    int result = watch(io->impl, op->fd, RECEIVE_EVENTS | EPOLLOUT, false);
    if (result < 0)
        io_defer(io, op, result);
    else
        append(&slot->out, op);
}

static void submit_send(struct io *io, struct slot *slot, struct io_op *op)
{
    struct epoll *epoll = io->impl;
    if (!slot->out)
        list_push_back(&epoll->unsent, &op->state.link);
    append(&slot->out, op);
}

static void submit_connect(struct io *io, struct slot *slot, struct io_op *op)
{
    forget(slot); /* whatever was known of that number */
    if (connect(op->fd, op->connect.address, op->connect.address_len) == 0)
        io_defer(io, op, 0);
    else if (errno == EINPROGRESS || errno == EINTR)
        wait_writable(io, slot, op);
    else
        io_defer(io, op, -errno);
}

static void submit_poll(struct io *io, struct slot *slot, struct io_op *op)
{
    /* Registering anew makes the kernel look at the present state, as poll(2) does. */
    int result = watch(io->impl, op->fd, (uint16_t)op->events | EPOLLRDHUP, true);
    if (result == 0)
        append(&slot->polls, op);
    else if (result == -EPERM) /* a regular file: always ready */
        io_defer(io, op, op->events & (POLLIN | POLLOUT));
    else
        io_defer(io, op, result);
}

static void submit_read(struct io *io, struct io_op *op)
{
    ssize_t count;
    do
        count = pread(op->fd, op->read.data, op->read.len, op->read.offset);
    while (count < 0 && errno == EINTR);
    io_defer(io, op, count < 0 ? -errno : (int)count);
}

static void submit(struct io *io, struct io_op *op)
{
    struct slot *slot = slot_of(io->impl, op->fd);
    if (!slot) {
        io_defer(io, op, op->fd < 0 ? -EBADF : -ENOMEM);
        return;
    }
    switch (op->kind) {
    case IO_OP_ACCEPT:
        fcntl(op->fd, F_SETFL,
              fcntl(op->fd, F_GETFL) | O_NONBLOCK); /* accept4 has no flag for it */
        submit_in(io, slot, op);
        break;
    case IO_OP_RECV:
        submit_in(io, slot, op);
        break;
    case IO_OP_SEND:
        submit_send(io, slot, op);
        break;
    case IO_OP_CONNECT:
        submit_connect(io, slot, op);
        break;
    case IO_OP_POLL:
        submit_poll(io, slot, op);
        break;
    case IO_OP_READ:
        submit_read(io, op);
        break;
    case IO_OP_RECV_FROM:
        submit_in(io, slot, op);
        break;
    case IO_OP_SEND_TO:
        if (slot->out)
            append(&slot->out, op);
        else
            io_hold_datagram(io, op);
        break;
    }
}

/* The operation waits for its descriptor no longer. */
static void leave_slot(struct epoll *epoll, struct io_op *op)
{
    struct slot *slot = slot_of(epoll, op->fd);
    if (slot->in == op)
        slot->in = NULL;
    take_out(&slot->out, op);
    take_out(&slot->polls, op);
    if (op->kind == IO_OP_POLL)
        unwatch_if_idle(epoll, op->fd);
    else if (slot->out && (op->kind == IO_OP_SEND || op->kind == IO_OP_SEND_TO))
        make_runnable(epoll, slot->out);
}

/* A send that is still to be tried is: who submits one and gives it up, as at the end of a
 * connection, has it sent if the socket takes it at once. */
static void cancel(struct io *io, struct io_op *op)
{
    bool untried = op->kind == IO_OP_SEND && !list_empty(&op->state.link);
    bool ended = untried && slot_of(io->impl, op->fd)->out == op && try_send(op);
    leave_slot(io->impl, op);
    io_defer(io, op, ended ? op->state.result : -ECANCELED);
}

static void close_fd(struct io *io, int fd)
{
    struct slot *slot = slot_of(io->impl, fd);
    if (slot)
        forget(slot);
    close(fd);
}

/* The kernel watches sockets, not descriptors. */
static void unwatch_fd(struct io *io, int fd)
{
    struct epoll *epoll = io->impl;
    epoll_ctl(epoll->fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Makes room for more slots, all zero. They are mapped, so that only those that are used take
 * memory: there is one for every idle connection. */
static bool map_slots(struct epoll *epoll, size_t count)
{
    size_t had = epoll->slot_count * sizeof(*epoll->slots);
    size_t bytes = count * sizeof(*epoll->slots);
    void *mapped =
        had ? mremap(epoll->slots, had, bytes, MREMAP_MAYMOVE)
            : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return false;
    epoll->slots = mapped;
    epoll->slot_count = count;
    return true;
}

/* The slot of a descriptor, or NULL. Valid until the next call, which may move the table. */
static struct slot *slot_of(struct epoll *epoll, int fd)
{
    if (fd < 0)
        return NULL;
    size_t index = (size_t)fd;
    if (index >= epoll->slot_count) {
        size_t count = epoll->slot_count ? epoll->slot_count : SLOTS_FIRST;
        while (count <= index)
            count *= 2;
        if (!map_slots(epoll, count))
            return NULL;
    }
    return &epoll->slots[index];
}

/* Sees to it that the events are watched; `again`: even if they are already. */
static int watch(struct epoll *epoll, int fd, uint32_t events, bool again)
{
    struct slot *slot = slot_of(epoll, fd);
    uint32_t wanted = slot->watched | events | EPOLLET;
    if (wanted == slot->watched && !again)
        return 0;
    struct epoll_event event = {
        .events = wanted,
        .data.u64 = (uint64_t)slot->generation << 32 | (uint32_t)fd,
    };
    int how = slot->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int result = epoll_ctl(epoll->fd, how, fd, &event);
    /* A descriptor that others closed is no longer registered; one that they duplicated still is.
     */
    if (result < 0 && errno == ENOENT)
        result = epoll_ctl(epoll->fd, EPOLL_CTL_ADD, fd, &event);
    else if (result < 0 && errno == EEXIST)
        result = epoll_ctl(epoll->fd, EPOLL_CTL_MOD, fd, &event);
    if (result < 0)
        return -errno;
    slot->watched = wanted;
    return 0;
}

/* Descriptors that are only polled belong to other libraries, which close them without a word. */
static void unwatch_if_idle(struct epoll *epoll, int fd)
{
    struct slot *slot = slot_of(epoll, fd);
    if (slot->in || slot->out || slot->polls)
        return;
    epoll_ctl(epoll->fd, EPOLL_CTL_DEL, fd, NULL);
    forget(slot);
}

static void forget(struct slot *slot)
{
    assert(!slot->in && !slot->out && !slot->polls);
    slot->watched = 0;
    slot->generation++;
    slot->readable = false;
    slot->to_the_end = false;
}

/* Nothing is called back from here: events only make operations runnable. */
static void note_event(struct epoll *epoll, const struct epoll_event *event)
{
    int fd = (int)(uint32_t)event->data.u64;
    struct slot *slot = slot_of(epoll, fd);
    if (slot->generation != event->data.u64 >> 32)
        return;
    if (event->events & (HANGUP_EVENTS | EPOLLPRI))
        slot->to_the_end = true;
    if (event->events & (EPOLLIN | HANGUP_EVENTS)) {
        slot->readable = true;
        if (slot->in)
            make_runnable(epoll, slot->in);
    }
    if (slot->out && event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        make_runnable(epoll, slot->out);
    for (struct io_op *op = slot->polls; op; op = op->state.peer) {
        uint32_t ready = event->events & ((uint16_t)op->events | HANGUP_EVENTS);
        if (!ready)
            continue;
        op->state.result = (int)ready;
        make_runnable(epoll, op);
    }
}

static void end_with(struct io *io, struct io_op *op, int result, struct io_buf *buf)
{
    leave_slot(io->impl, op);
    io_finish_with(io, op, result, buf);
}

static void end(struct io *io, struct io_op *op, int result)
{
    end_with(io, op, result, NULL);
}

/* May the operation go on after a report? */
static bool readable_still(struct epoll *epoll, const struct io_op *op)
{
    return !op->state.cancelled && slot_of(epoll, op->fd)->readable;
}

/* One receive. Returns false if the operation has ended or has nothing to do at present. */
static bool recv_once(struct io *io, struct io_op *op)
{
    struct epoll *epoll = io->impl;
    struct io_buf *buf = bufpool_get(&io->pool);
    if (!buf) {
        io_note_wait(io, &io->pool);
        io_park(io, op);
        return false;
    }
    ssize_t count = recv(op->fd, buf->data, io->pool.buffer_bytes, MSG_DONTWAIT);
    if (count > 0) {
        /* Less than asked for: read empty, unless it may have stopped in front of something. */
        struct slot *slot = slot_of(epoll, op->fd);
        if ((size_t)count < io->pool.buffer_bytes && !slot->to_the_end)
            slot->readable = false;
        buf->len = (uint32_t)count;
        if (op->once) {
            end_with(io, op, (int)count, buf);
            return false;
        }
        io_report(io, op, (int)count, buf);
        return readable_still(epoll, op);
    }
    int error = count < 0 ? errno : 0;
    bufpool_put(&io->pool, buf);
    if (error == EINTR)
        return true;
    if (error == EAGAIN)
        slot_of(epoll, op->fd)->readable = false;
    else
        end(io, op, -error);
    return false;
}

/* One accept; returns as recv_once does. */
static bool accept_once(struct io *io, struct io_op *op)
{
    struct epoll *epoll = io->impl;
    int fd = accept4(op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        struct slot *slot = slot_of(epoll, fd);
        if (slot)
            forget(slot); /* whatever was known of that number */
        if (op->once) {
            end(io, op, fd);
            return false;
        }
        io_report(io, op, fd, NULL);
        return readable_still(epoll, op);
    }
    int error = errno;
    if (io_accept_transient(-error))
        return true;
    if (error == EAGAIN)
        slot_of(epoll, op->fd)->readable = false;
    else
        end(io, op, -error);
    return false;
}

static void perform_in(struct io *io, struct io_op *op, bool (*once)(struct io *, struct io_op *),
                       unsigned burst)
{
    while (burst--)
        if (!once(io, op))
            return;
    make_runnable(io->impl, op);
}

/* Sends what the socket takes. True if the operation has ended, with op->state.result. */
static bool try_send(struct io_op *op)
{
    struct msghdr *msg = &op->msg;
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    for (;;) {
        ssize_t count;
        if (msg->msg_iovlen == 1 && !msg->msg_controllen && !msg->msg_namelen)
            count = send(op->fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, flags);
        else
            count = sendmsg(op->fd, msg, flags);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return false;
        op->state.result = count < 0 ? -errno : (int)(op->state.sent += (size_t)count);
        if (count < 0)
            return true;
        io_message_consume(msg, (size_t)count);
        if (io_message_left(msg) == 0)
            return true;
    }
}

/* --- Datagrams -------------------------------------------------------------------------------- */

/* Lays a buffer out as the kernel does for io_uring: see struct datagram_head. */
static void aim(const struct io_op *op, struct io_buf *buf, const struct bufpool *pool,
                struct mmsghdr *message, struct iovec *iov)
{
    assert(buf);
    size_t head = io_datagram_head_bytes(op);
    char *name = buf->base + sizeof(struct datagram_head);
    buf->data = buf->base + head;
    *iov = (struct iovec){buf->data, pool->buffer_bytes - head};
    message->msg_hdr = (struct msghdr){
        .msg_name = op->msg.msg_namelen ? name : NULL,
        .msg_namelen = op->msg.msg_namelen,
        .msg_control = op->msg.msg_controllen ? name + op->msg.msg_namelen : NULL,
        .msg_controllen = op->msg.msg_controllen,
        .msg_iov = iov,
        .msg_iovlen = 1,
    };
}

static void report_datagram(struct io *io, struct io_op *op, struct io_buf *buf,
                            const struct mmsghdr *message)
{
    const struct datagram_head head = {
        .name_len = message->msg_hdr.msg_namelen,
        .control_len = (uint32_t)message->msg_hdr.msg_controllen,
        .payload_len = message->msg_len,
        .flags = (uint32_t)message->msg_hdr.msg_flags,
    };
    memcpy(buf->base, &head, sizeof(head));
    buf->len = message->msg_len;
    io_report(io, op, (int)buf->len, buf);
}

/* One call; returns as recv_once does. */
static bool recv_batch(struct io *io, struct io_op *op)
{
    struct epoll *epoll = io->impl;
    struct io_buf *bufs[DATAGRAM_BATCH];
    struct mmsghdr messages[DATAGRAM_BATCH];
    struct iovec iovs[DATAGRAM_BATCH];
    int room = 0;
    while (room < DATAGRAM_BATCH && (bufs[room] = bufpool_get(&io->datagrams))) {
        aim(op, bufs[room], &io->datagrams, &messages[room], &iovs[room]);
        room++;
    }
    if (room == 0) {
        io_note_wait(io, &io->datagrams);
        io_park(io, op);
        return false;
    }
    int count = recvmmsg(op->fd, messages, (unsigned)room, MSG_DONTWAIT, NULL);
    int error = count < 0 ? errno : 0;
    assert(count <= room);
    for (int i = room; i-- > (count < 0 ? 0 : count);)
        bufpool_put(&io->datagrams, bufs[i]);
    if (error == EAGAIN || (count >= 0 && count < room))
        slot_of(epoll, op->fd)->readable = false;
    else if (error && error != EINTR)
        end(io, op, -error);
    for (int i = 0; i < count; i++) /* those behind a cancellation, too: they have been taken */
        report_datagram(io, op, bufs[i], &messages[i]);
    return error == EINTR || (count == room && readable_still(epoll, op));
}

/* True if the operation has ended, with op->state.result. */
static bool try_send_to(struct io_op *op)
{
    ssize_t count;
    do
        count = sendmsg(op->fd, &op->msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    op->state.result = count < 0 ? -errno : (int)count;
    return op->state.result != -EAGAIN;
}

/* The first datagrams of the list that go to one descriptor. */
static unsigned gather(struct list *unsent, struct io_op **ops, struct mmsghdr *messages)
{
    unsigned count = 0;
    for (struct list *node = unsent->next; node != unsent && count < DATAGRAM_BATCH;
         node = node->next) {
        struct io_op *op = container_of(node, struct io_op, state.link);
        if (count && op->fd != ops[0]->fd)
            break;
        ops[count] = op;
        messages[count++] = (struct mmsghdr){.msg_hdr = op->msg};
    }
    return count;
}

/* The socket is full: those that may wait for it do so, in their order. */
static void wait_to_send(struct io *io, struct io_op **ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        io_let_go_datagram(ops[i]);
        if (ops[i]->msg.msg_flags & MSG_DONTWAIT)
            io_defer(io, ops[i], -EAGAIN);
        else
            wait_writable(io, slot_of(io->impl, ops[i]->fd), ops[i]);
    }
}

static void send_datagrams(struct io *io)
{
    struct io_op *ops[DATAGRAM_BATCH];
    struct mmsghdr messages[DATAGRAM_BATCH];
    while (!list_empty(&io->unsent)) {
        unsigned count = gather(&io->unsent, ops, messages);
        assert(count > 0);
        int sent = sendmmsg(ops[0]->fd, messages, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            wait_to_send(io, ops, count);
        else if (sent < 0)
            io_defer(io, ops[0], -errno);
        assert(sent <= (int)count);
        for (int i = 0; i < sent; i++)
            io_defer(io, ops[i], (int)messages[i].msg_len);
    }
}

static void perform_connect(struct io *io, struct io_op *op)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    end(io, op, -error);
}

static void perform(struct io *io, struct io_op *op)
{
    switch (op->kind) {
    case IO_OP_ACCEPT:
        perform_in(io, op, accept_once, ACCEPT_BURST);
        break;
    case IO_OP_RECV:
        perform_in(io, op, recv_once, RECV_BURST);
        break;
    case IO_OP_SEND:
        if (try_send(op))
            end(io, op, op->state.result);
        break;
    case IO_OP_CONNECT:
        perform_connect(io, op);
        break;
    case IO_OP_POLL:
        end(io, op, op->state.result);
        break;
    case IO_OP_READ:
        break; /* never waits */
    case IO_OP_RECV_FROM:
        perform_in(io, op, recv_batch, DATAGRAM_BURST);
        break;
    case IO_OP_SEND_TO:
        if (try_send_to(op))
            end(io, op, op->state.result);
        break;
    }
}
