/*
 * The io_uring back end (Linux 6.1 and later). Submissions only fill ring entries; one kernel entry
 * a turn hands them all over and waits. The kernel puts received bytes into buffers of a ring that
 * is refilled from the pool before every entry, so that idle connections hold none.
 *
 *                        bufpool ──refill──▶ buffer ring ──▶ completion ──▶ done(op, buf)
 *                           ▲                    │ empty: -ENOBUFS               │
 *                           │                    ▼                               │
 *                           │                 io->parked ──re-armed when refilled│
 *                           └──────────────── io_buf_release ◀───────────────────┘
 */
#include "base/log.h"
#include "io/backend.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ENTRIES = 4096,         /* submission entries unless the options say otherwise */
    RING_BUFFERS = 1024,    /* entries of a buffer ring, a power of two */
    RING_FILL_MIN = 64,     /* buffers kept in it at first: few, so that they stay in the cache */
    STREAMS_FILL_MAX = 128, /* and at most, for streams: starving costs less than cold memory */
    FILL_DECAY_MS = 5000,   /* after so long without starving, half as many are enough */
    NO_OP = 0,              /* user data of requests whose completion nobody waits for */
};

/* Buffers that the kernel may fill: a group for streams and one for datagrams, which is made when
 * it is first needed. */
struct buffer_ring {
    uint16_t group;
    struct bufpool *pool; /* whose buffers they are */
    struct io_uring_buf_ring *slots;
    struct io_buf *buffers[RING_BUFFERS]; /* by buffer id; the kernel has them */
    uint16_t free_ids[RING_BUFFERS];
    uint32_t free_id_count;
    uint32_t filled;    /* buffers that the kernel has */
    uint32_t fill_goal; /* how many it is to have: doubled when they ran out */
    uint32_t fill_max;
    int64_t fill_changed_ms;
    uint32_t added; /* to these since dry was called last */
    bool dry;       /* the buffers that the kernel has hold no memory */
};

struct uring {
    struct io_uring ring;
    struct buffer_ring streams;
    struct buffer_ring *datagrams; /* NULL: none were received yet */
};

static int create(struct io *io, const struct io_options *options);
static void destroy(struct io *io);
static int turn(struct io *io, int64_t wait_ms);
static void submit(struct io *io, struct io_op *op);
static void cancel(struct io *io, struct io_op *op);
static void close_fd(struct io *io, int fd);
static void dry(struct io *io);

static int open_ring(struct uring *uring, uint32_t entries);
static int open_buffer_ring(struct io *io, struct uring *uring, struct buffer_ring *ring,
                            struct bufpool *pool, uint16_t group);
static void close_buffer_ring(struct buffer_ring *ring);
static void refill(struct io *io, struct buffer_ring *ring);
static void rearm_parked(struct io *io, struct list *parked, const struct buffer_ring *ring);
static void send_datagrams(struct io *io);
static int enter(struct uring *uring, int64_t wait_ms);
static void complete(struct io *io, struct io_op *op, int result, uint32_t flags);

const struct io_backend uring_backend = {
    .name = "io_uring",
    .create = create,
    .destroy = destroy,
    .turn = turn,
    .submit = submit,
    .cancel = cancel,
    .close_fd = close_fd,
    .dry = dry,
};

static int create(struct io *io, const struct io_options *options)
{
    struct uring *uring = calloc(1, sizeof(*uring));
    if (!uring)
        return -ENOMEM;
    int result = open_ring(uring, options->entries ? options->entries : ENTRIES);
    if (result == 0) {
        uring->streams.fill_max = STREAMS_FILL_MAX;
        result = open_buffer_ring(io, uring, &uring->streams, &io->pool, 0);
        if (result < 0)
            io_uring_queue_exit(&uring->ring);
    }
    if (result < 0) {
        free(uring);
        return result;
    }
    io->impl = uring;
    return 0;
}

static void destroy(struct io *io)
{
    struct uring *uring = io->impl;
    io_uring_submit(&uring->ring); /* closes may be waiting */
    io_uring_queue_exit(&uring->ring);
    close_buffer_ring(&uring->streams);
    if (uring->datagrams)
        close_buffer_ring(uring->datagrams);
    free(uring->datagrams);
    free(uring);
}

/* Gives the kernel buffers, and takes up the receives that wait for them. */
static void feed(struct io *io, struct buffer_ring *ring, struct list *parked, int64_t *wait_ms)
{
    refill(io, ring);
    rearm_parked(io, parked, ring);
    if (!list_empty(parked) && ring->filled)
        *wait_ms = 0; /* more may be armed at once, in the next turn */
}

static int turn(struct io *io, int64_t wait_ms)
{
    struct uring *uring = io->impl;
    feed(io, &uring->streams, &io->parked, &wait_ms);
    if (uring->datagrams)
        feed(io, uring->datagrams, &io->parked_datagrams, &wait_ms);
    send_datagrams(io);
    io_await_memory(io, &wait_ms);
    int result = enter(uring, wait_ms);
    io->stats.turns++;
    io_tick(io);

    unsigned count = io_uring_cq_ready(&uring->ring);
    unsigned mask = *uring->ring.cq.kring_mask;
    unsigned head = *uring->ring.cq.khead;
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_cqe *cqe = &uring->ring.cq.cqes[(head + i) & mask];
        if (cqe->user_data != NO_OP)
            complete(io, (struct io_op *)(uintptr_t)cqe->user_data, cqe->res, cqe->flags);
    }
    io_uring_cq_advance(&uring->ring, count);
    return result;
}

static int open_ring(struct uring *uring, uint32_t entries)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
        .cq_entries = entries * 4,
    };
    int result = io_uring_queue_init_params(entries, &uring->ring, &params);
    if (result < 0)
        return result;
    io_uring_ring_dontfork(&uring->ring);
    io_uring_register_ring_fd(&uring->ring); /* only saves a look-up: may fail */
    return 0;
}

static int open_buffer_ring(struct io *io, struct uring *uring, struct buffer_ring *ring,
                            struct bufpool *pool, uint16_t group)
{
    size_t bytes = RING_BUFFERS * sizeof(struct io_uring_buf);
    ring->slots = aligned_alloc((size_t)sysconf(_SC_PAGESIZE), bytes);
    if (!ring->slots)
        return -ENOMEM;
    memset(ring->slots, 0, bytes);
    io_uring_buf_ring_init(ring->slots);
    struct io_uring_buf_reg registration = {
        .ring_addr = (uintptr_t)ring->slots,
        .ring_entries = RING_BUFFERS,
        .bgid = group,
    };
    int result = io_uring_register_buf_ring(&uring->ring, &registration, 0);
    if (result < 0) {
        free(ring->slots);
        return result;
    }
    ring->group = group;
    ring->pool = pool;
    ring->fill_goal = RING_FILL_MIN;
    ring->fill_changed_ms = io->now_ms;
    for (uint32_t id = RING_BUFFERS; id-- > 0;)
        ring->free_ids[ring->free_id_count++] = (uint16_t)id;
    return 0;
}

/* The kernel knows of it no longer. */
static void close_buffer_ring(struct buffer_ring *ring)
{
    for (uint32_t id = 0; id < RING_BUFFERS; id++)
        if (ring->buffers[id])
            bufpool_put(ring->pool, ring->buffers[id]);
    free(ring->slots);
}

static int open_datagrams(struct io *io, struct uring *uring)
{
    struct buffer_ring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    ring->fill_max = RING_BUFFERS;
    int result = open_buffer_ring(io, uring, ring, &io->datagrams, 1);
    if (result < 0)
        free(ring);
    else
        uring->datagrams = ring;
    return result;
}

static void refill(struct io *io, struct buffer_ring *ring)
{
    int added = 0;
    if (ring->fill_goal > RING_FILL_MIN && io->now_ms - ring->fill_changed_ms > FILL_DECAY_MS) {
        ring->fill_goal /= 2;
        ring->fill_changed_ms = io->now_ms;
    }
    while (ring->filled < ring->fill_goal) {
        struct io_buf *buf = bufpool_get(ring->pool);
        if (!buf)
            break;
        uint16_t id = ring->free_ids[--ring->free_id_count];
        ring->buffers[id] = buf;
        ring->filled++;
        io_uring_buf_ring_add(ring->slots, buf->base, ring->pool->buffer_bytes, id,
                              RING_BUFFERS - 1, added++);
    }
    if (added)
        io_uring_buf_ring_advance(ring->slots, added);
    ring->added += (uint32_t)added;
    ring->dry &= !added;
}

/* Whole pages only. */
static void dry_buffer(const struct io_buf *buf, uint32_t bytes, uintptr_t page)
{
    uintptr_t begin = ((uintptr_t)buf->base + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)buf->base + bytes) & ~(page - 1);
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

/* Unless so many are used that most would soon be filled again. */
static void dry_ring(struct buffer_ring *ring, uintptr_t page)
{
    bool in_use = ring->added >= ring->filled / 4;
    ring->added = 0;
    for (unsigned id = 0; id < RING_BUFFERS && !in_use && !ring->dry; id++)
        if (ring->buffers[id])
            dry_buffer(ring->buffers[id], ring->pool->buffer_bytes, page);
    ring->dry |= !in_use;
}

/* The kernel fills buffers while this thread is in it (IORING_SETUP_DEFER_TASKRUN), so none has
 * been filled of which no completion tells. Only urgent data may have a thread of the kernel's
 * receive: who sends that would at worst find zeros in place of his own bytes. */
static void dry(struct io *io)
{
    struct uring *uring = io->impl;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (io_uring_cq_ready(&uring->ring) || io_uring_cq_has_overflow(&uring->ring))
        return;
    dry_ring(&uring->streams, page);
    if (uring->datagrams)
        dry_ring(uring->datagrams, page);
}

/* No more are armed at a time than there are buffers for, or they would only come back. */
static void rearm_parked(struct io *io, struct list *parked, const struct buffer_ring *ring)
{
    uint32_t room = ring->filled;
    while (room-- && !list_empty(parked)) {
        struct io_op *op = container_of(parked->next, struct io_op, state.link);
        list_remove(&op->state.link);
        op->state.parked = false;
        submit(io, op);
    }
}

static int enter(struct uring *uring, int64_t wait_ms)
{
    struct io_uring_cqe *first;
    int result;
    if (wait_ms == 0) {
        result = io_uring_submit_and_get_events(&uring->ring);
    } else {
        struct __kernel_timespec wait = {.tv_sec = wait_ms / 1000,
                                         .tv_nsec = wait_ms % 1000 * 1000000};
        result = io_uring_submit_and_wait_timeout(&uring->ring, &first, 1,
                                                  wait_ms < 0 ? NULL : &wait, NULL);
    }
    switch (result) {
    case -ETIME:
    case -EINTR:
    case -EAGAIN: /* memory is short: the entries stay queued */
    case -EBUSY:
        return 0;
    default:
        return result < 0 ? result : 0;
    }
}

/* An empty submission entry. A full queue is handed to the kernel, which takes it all. */
static struct io_uring_sqe *next_sqe(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (!sqe) {
        io_uring_submit(&uring->ring);
        sqe = io_uring_get_sqe(&uring->ring);
        assert(sqe); /* no memory left for a single request */
    }
    return sqe;
}

static void prepare_message(struct io_uring_sqe *sqe, const struct io_op *op, int flags)
{
    const struct msghdr *msg = &op->msg;
    if (msg->msg_iovlen == 1 && !msg->msg_controllen && !msg->msg_namelen)
        io_uring_prep_send(sqe, op->fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, flags);
    else
        io_uring_prep_sendmsg(sqe, op->fd, msg, (unsigned)flags);
}

static void prepare_accept(struct io_uring_sqe *sqe, const struct io_op *op)
{
    const int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (op->once)
        io_uring_prep_accept(sqe, op->fd, NULL, NULL, flags);
    else
        io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, flags);
}

/* False if memory for the buffers is missing: the failure is reported. */
static bool prepare_recv_from(struct io *io, struct io_uring_sqe *sqe, struct io_op *op)
{
    struct uring *uring = io->impl;
    if (!uring->datagrams) {
        int result = open_datagrams(io, uring);
        if (result < 0) {
            io_uring_prep_nop(sqe);
            io_uring_sqe_set_data64(sqe, NO_OP);
            io_defer(io, op, result);
            return false;
        }
        refill(io, uring->datagrams);
    }
    io_uring_prep_recvmsg_multishot(sqe, op->fd, &op->msg, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = uring->datagrams->group;
    return true;
}

static void send_datagrams(struct io *io)
{
    while (!list_empty(&io->unsent)) {
        struct io_op *op = container_of(io->unsent.next, struct io_op, state.link);
        struct io_uring_sqe *sqe = next_sqe(io->impl);
        io_let_go_datagram(op);
        prepare_message(sqe, op, MSG_NOSIGNAL | (op->msg.msg_flags & MSG_DONTWAIT));
        io_uring_sqe_set_data(sqe, op);
    }
}

static void submit(struct io *io, struct io_op *op)
{
    if (op->kind == IO_OP_SEND_TO) {
        io_hold_datagram(io, op);
        return;
    }
    struct io_uring_sqe *sqe = next_sqe(io->impl);
    switch (op->kind) {
    case IO_OP_ACCEPT:
        prepare_accept(sqe, op);
        break;
    case IO_OP_RECV:
        if (op->once)
            io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
        else
            io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = ((struct uring *)io->impl)->streams.group;
        break;
    case IO_OP_SEND:
        /* Without MSG_WAITALL: behind a part the kernel would drop the error that ended it, and the
         * receive, which is told of no reset then, would see an orderly end. */
        prepare_message(sqe, op, MSG_NOSIGNAL);
        break;
    case IO_OP_CONNECT:
        io_uring_prep_connect(sqe, op->fd, op->connect.address, op->connect.address_len);
        break;
    case IO_OP_POLL:
        io_uring_prep_poll_add(sqe, op->fd, (unsigned short)op->events);
        break;
    case IO_OP_READ:
        io_uring_prep_read(sqe, op->fd, op->read.data, (unsigned)op->read.len,
                           (uint64_t)op->read.offset);
        break;
    case IO_OP_RECV_FROM:
        if (!prepare_recv_from(io, sqe, op))
            return;
        break;
    case IO_OP_SEND_TO:
        break; /* is held */
    }
    io_uring_sqe_set_data(sqe, op);
}

static void cancel(struct io *io, struct io_op *op)
{
    if (op->state.parked) { /* not with the kernel */
        io_defer(io, op, -ECANCELED);
        return;
    }
    struct io_uring_sqe *sqe = next_sqe(io->impl);
    io_uring_prep_cancel(sqe, op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, NO_OP);
}

static void close_fd(struct io *io, int fd)
{
    struct io_uring_sqe *sqe = next_sqe(io->impl);
    io_uring_prep_close(sqe, fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, NO_OP);
}

/* A multishot operation has stopped by itself: it is armed again, unless its end is wanted. */
static void rearm(struct io *io, struct io_op *op)
{
    if (op->state.cancelled)
        io_finish(io, op, -ECANCELED);
    else
        submit(io, op);
}

static void complete_accept(struct io *io, struct io_op *op, int result, bool more)
{
    bool lasting = result < 0 && !io_accept_transient(result);
    if (lasting || (result >= 0 && op->once)) {
        io_finish(io, op, result);
        return;
    }
    if (result >= 0)
        io_report(io, op, result, NULL);
    if (!more)
        rearm(io, op);
}

/* The buffer that came with a completion, or NULL. */
static struct io_buf *take_buffer(struct buffer_ring *ring, uint32_t flags)
{
    if (!(flags & IORING_CQE_F_BUFFER))
        return NULL;
    uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
    struct io_buf *buf = ring->buffers[id];
    assert(buf);
    ring->buffers[id] = NULL;
    ring->free_ids[ring->free_id_count++] = id;
    ring->filled--;
    return buf;
}

/* The ring ran empty: the receive waits until it is refilled, which is before the next entry unless
 * the pool is at its bound. */
static void starve(struct io *io, struct buffer_ring *ring, struct io_op *op)
{
    if (!bufpool_room(ring->pool)) {
        io_note_wait(io, ring->pool);
    } else if (ring->fill_goal < ring->fill_max && ring->filled == 0) {
        ring->fill_goal *= 2;
        ring->fill_changed_ms = io->now_ms;
    }
    io_park(io, op);
}

/* A receive has stopped without anything received. */
static void recv_stopped(struct io *io, struct buffer_ring *ring, struct io_op *op, int result)
{
    if (result == -ENOBUFS && !op->state.cancelled)
        starve(io, ring, op);
    else if (result == -ENOBUFS || result == -EINTR)
        rearm(io, op);
    else
        io_finish(io, op, result);
}

static void complete_recv(struct io *io, struct io_op *op, int result, uint32_t flags)
{
    struct buffer_ring *ring = &((struct uring *)io->impl)->streams;
    struct io_buf *buf = take_buffer(ring, flags);
    if (result > 0) {
        assert(buf); /* every receive selects one */
        buf->len = (uint32_t)result;
        if (op->once) {
            io_finish_with(io, op, result, buf);
            return;
        }
        io_report(io, op, result, buf);
        if (!(flags & IORING_CQE_F_MORE))
            rearm(io, op);
        return;
    }
    if (buf)
        bufpool_put(ring->pool, buf);
    recv_stopped(io, ring, op, result);
}

static void complete_recv_from(struct io *io, struct io_op *op, int result, uint32_t flags)
{
    struct buffer_ring *ring = ((struct uring *)io->impl)->datagrams;
    struct io_buf *buf = take_buffer(ring, flags);
    if (result >= 0) {
        size_t head = io_datagram_head_bytes(op);
        assert(buf && (size_t)result >= head); /* there is room for any */
        buf->data = buf->base + head;
        buf->len = (uint32_t)((size_t)result - head);
        io_report(io, op, (int)buf->len, buf);
        if (!(flags & IORING_CQE_F_MORE))
            rearm(io, op);
        return;
    }
    if (buf)
        bufpool_put(ring->pool, buf);
    recv_stopped(io, ring, op, result);
}

/* Goes on with the first piece alone. */
static void send_first(struct io *io, struct io_op *op)
{
    struct msghdr *msg = &op->msg;
    io_message_consume(msg, 0); /* empty pieces in front */
    struct io_uring_sqe *sqe = next_sqe(io->impl);
    io_uring_prep_send(sqe, op->fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len, MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, op);
}

/* A socket that is half-closed counts as ready: there the kernel leaves the waiting to a thread of
 * its own, and a cancellation interrupts that. The thread waits with one piece only: with several
 * it goes by the descriptor, which is non-blocking. */
static void complete_send(struct io *io, struct io_op *op, int result)
{
    if (result == -EAGAIN && !op->state.cancelled) {
        send_first(io, op);
        return;
    }
    if (result == -EINTR || result == -EAGAIN) {
        rearm(io, op);
        return;
    }
    if (result < 0) {
        io_finish(io, op, result);
        return;
    }
    op->state.sent += (uint32_t)result;
    size_t left = io_message_left(&op->msg) - (size_t)result;
    if (left == 0)
        io_finish(io, op, (int)op->state.sent);
    else if (result == 0)
        io_finish(io, op, -EIO);
    else {
        io_message_consume(&op->msg, (size_t)result);
        rearm(io, op);
    }
}

static void complete(struct io *io, struct io_op *op, int result, uint32_t flags)
{
    switch (op->kind) {
    case IO_OP_ACCEPT:
        complete_accept(io, op, result, flags & IORING_CQE_F_MORE);
        break;
    case IO_OP_RECV:
        complete_recv(io, op, result, flags);
        break;
    case IO_OP_SEND:
        complete_send(io, op, result);
        break;
    case IO_OP_RECV_FROM:
        complete_recv_from(io, op, result, flags);
        break;
    default:
        io_finish(io, op, result);
    }
}
