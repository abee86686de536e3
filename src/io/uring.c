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
#include <unistd.h>

enum {
    ENTRIES = 4096,       /* submission entries unless the options say otherwise */
    BUFFER_GROUP = 0,     /* the only one */
    RING_BUFFERS = 1024,  /* entries of the buffer ring, a power of two */
    RING_FILL_MIN = 64,   /* buffers kept in it at first: few, so that they stay in the cache */
    FILL_DECAY_MS = 5000, /* after so long without starving, half as many are enough */
    NO_OP = 0,            /* user data of requests whose completion nobody waits for */
};

struct uring {
    struct io_uring ring;
    struct io_uring_buf_ring *slots;
    struct io_buf *buffers[RING_BUFFERS]; /* by buffer id; the kernel has them */
    uint16_t free_ids[RING_BUFFERS];
    uint32_t free_id_count;
    uint32_t filled;    /* buffers that the kernel has */
    uint32_t fill_goal; /* how many it is to have: doubled when they ran out */
    int64_t fill_changed_ms;
};

static int create(struct io *io, const struct io_options *options);
static void destroy(struct io *io);
static int turn(struct io *io, int64_t wait_ms);
static void submit(struct io *io, struct io_op *op);
static void cancel(struct io *io, struct io_op *op);
static void close_fd(struct io *io, int fd);

static int open_ring(struct uring *uring, uint32_t entries);
static int open_buffer_ring(struct uring *uring);
static void refill(struct io *io, struct uring *uring);
static void rearm_parked(struct io *io, struct uring *uring);
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
};

static int create(struct io *io, const struct io_options *options)
{
    struct uring *uring = calloc(1, sizeof(*uring));
    if (!uring)
        return -ENOMEM;
    int result = open_ring(uring, options->entries ? options->entries : ENTRIES);
    if (result == 0) {
        result = open_buffer_ring(uring);
        if (result < 0)
            io_uring_queue_exit(&uring->ring);
    }
    if (result < 0) {
        free(uring);
        return result;
    }
    uring->fill_goal = RING_FILL_MIN;
    uring->fill_changed_ms = io->now_ms;
    for (uint32_t id = RING_BUFFERS; id-- > 0;)
        uring->free_ids[uring->free_id_count++] = (uint16_t)id;
    io->impl = uring;
    return 0;
}

static void destroy(struct io *io)
{
    struct uring *uring = io->impl;
    io_uring_submit(&uring->ring); /* closes may be waiting */
    io_uring_queue_exit(&uring->ring);
    for (uint32_t id = 0; id < RING_BUFFERS; id++)
        if (uring->buffers[id])
            bufpool_put(&io->pool, uring->buffers[id]);
    free(uring->slots);
    free(uring);
}

static int turn(struct io *io, int64_t wait_ms)
{
    struct uring *uring = io->impl;
    refill(io, uring);
    rearm_parked(io, uring);
    if (!list_empty(&io->parked) && uring->filled)
        wait_ms = 0; /* more may be armed at once, in the next turn */
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

static int open_buffer_ring(struct uring *uring)
{
    size_t bytes = RING_BUFFERS * sizeof(struct io_uring_buf);
    uring->slots = aligned_alloc((size_t)sysconf(_SC_PAGESIZE), bytes);
    if (!uring->slots)
        return -ENOMEM;
    memset(uring->slots, 0, bytes);
    io_uring_buf_ring_init(uring->slots);
    struct io_uring_buf_reg registration = {
        .ring_addr = (uintptr_t)uring->slots,
        .ring_entries = RING_BUFFERS,
        .bgid = BUFFER_GROUP,
    };
    int result = io_uring_register_buf_ring(&uring->ring, &registration, 0);
    if (result < 0)
        free(uring->slots);
    return result;
}

static void refill(struct io *io, struct uring *uring)
{
    int added = 0;
    if (uring->fill_goal > RING_FILL_MIN && io->now_ms - uring->fill_changed_ms > FILL_DECAY_MS) {
        uring->fill_goal /= 2;
        uring->fill_changed_ms = io->now_ms;
    }
    while (uring->filled < uring->fill_goal) {
        struct io_buf *buf = bufpool_get(&io->pool);
        if (!buf)
            break;
        uint16_t id = uring->free_ids[--uring->free_id_count];
        uring->buffers[id] = buf;
        uring->filled++;
        io_uring_buf_ring_add(uring->slots, buf->base, io->pool.buffer_bytes, id, RING_BUFFERS - 1,
                              added++);
    }
    if (added)
        io_uring_buf_ring_advance(uring->slots, added);
}

/* No more are armed at a time than there are buffers for, or they would only come back. */
static void rearm_parked(struct io *io, struct uring *uring)
{
    uint32_t room = uring->filled;
    while (room-- && !list_empty(&io->parked)) {
        struct io_op *op = container_of(io->parked.next, struct io_op, state.link);
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

static void prepare_send(struct io_uring_sqe *sqe, const struct io_op *op)
{
    /* Waiting for all of it spares further entries when the socket's buffer fills up. */
    const int flags = MSG_NOSIGNAL | MSG_WAITALL;
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

static void submit(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = next_sqe(io->impl);
    switch (op->kind) {
    case IO_OP_ACCEPT:
        prepare_accept(sqe, op);
        break;
    case IO_OP_RECV:
        io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = BUFFER_GROUP;
        break;
    case IO_OP_SEND:
        prepare_send(sqe, op);
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

static struct io_buf *take_buffer(struct uring *uring, uint32_t flags)
{
    uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
    struct io_buf *buf = uring->buffers[id];
    assert(buf);
    uring->buffers[id] = NULL;
    uring->free_ids[uring->free_id_count++] = id;
    uring->filled--;
    return buf;
}

/* The ring ran empty: the receive waits until it is refilled, which is before the next entry unless
 * the pool is at its bound. */
static void starve(struct io *io, struct uring *uring, struct io_op *op)
{
    if (!bufpool_any(&io->pool)) {
        io->stats.buffer_waits++;
    } else if (uring->fill_goal < RING_BUFFERS && uring->filled == 0) {
        uring->fill_goal *= 2;
        uring->fill_changed_ms = io->now_ms;
    }
    io_park(io, op);
}

static void complete_recv(struct io *io, struct io_op *op, int result, uint32_t flags)
{
    struct uring *uring = io->impl;
    struct io_buf *buf = flags & IORING_CQE_F_BUFFER ? take_buffer(uring, flags) : NULL;
    if (result > 0) {
        assert(buf); /* every receive selects one */
        buf->len = (uint32_t)result;
        io_report(io, op, result, buf);
        if (!(flags & IORING_CQE_F_MORE))
            rearm(io, op);
        return;
    }
    if (buf)
        bufpool_put(&io->pool, buf);
    if (result == -ENOBUFS && !op->state.cancelled)
        starve(io, uring, op);
    else if (result == -ENOBUFS || result == -EINTR)
        rearm(io, op);
    else
        io_finish(io, op, result);
}

static void complete_send(struct io *io, struct io_op *op, int result)
{
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
    default:
        io_finish(io, op, result);
    }
}
