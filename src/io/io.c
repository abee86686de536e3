#include "io/io.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "io/backend.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_BYTES = 32 * 1024,
    DATAGRAM_BYTES = 65536 + sizeof(struct datagram_head) + IO_DATAGRAM_ROOM,
    SCARCE_PART = 4,
    MEMORY_RETRY_MS = 20,
};
#define BUFFER_MAX_BYTES   (UINT64_C(256) << 20)
#define DATAGRAM_MAX_BYTES (UINT64_C(64) << 20)

static int choose_backend(struct io *io, const struct io_options *options);
static int64_t wait_bound_ms(const struct io *io, int wait_ms);
static void report_deferred(struct io *io);
static void retry_memory(struct timer *timer);

int io_create(struct io **io, const struct io_options *options)
{
    struct io *created = calloc(1, sizeof(*created));
    if (!created)
        return -ENOMEM;
    created->now_ms = clock_now_ms();
    timer_wheel_init(&created->timers, created->now_ms);
    timer_init(&created->memory_retry, retry_memory, created);
    list_init(&created->deferred);
    list_init(&created->parked);
    list_init(&created->parked_datagrams);
    list_init(&created->unsent);
    bufpool_init(&created->pool, options->buffer_bytes ? options->buffer_bytes : BUFFER_BYTES,
                 options->buffer_max_bytes ? options->buffer_max_bytes : BUFFER_MAX_BYTES);
    pipepool_init(&created->pipes, options->pipe_bytes);
    bufpool_init(&created->datagrams, DATAGRAM_BYTES,
                 options->datagram_max_bytes ? options->datagram_max_bytes : DATAGRAM_MAX_BYTES);
    created->datagrams.datagrams = true;
    int result = choose_backend(created, options);
    if (result < 0) {
        free(created);
        return result;
    }
    *io = created;
    return 0;
}

void io_destroy(struct io *io)
{
    assert(io->in_flight == 0);
    io->backend->destroy(io);
    timer_stop(&io->memory_retry);
    pipepool_fini(&io->pipes);
    bufpool_fini(&io->pool);
    bufpool_fini(&io->datagrams);
    free(io);
}

const char *io_backend_name(const struct io *io)
{
    return io->backend->name;
}

int io_turn(struct io *io, int wait_ms)
{
    io->asked_kernel = true;
    int result = io->backend->turn(io, wait_bound_ms(io, wait_ms));
    report_deferred(io);
    /* After a pause what has arrived in time comes first, then who is late. */
    if (io->asked_kernel && timer_wheel_advance(&io->timers, io->now_ms))
        io_tick(io); /* they have taken their time, and may have begun nothing that ends a wait */
    return result;
}

void io_submit(struct io *io, struct io_op *op)
{
    assert(!op->state.in_flight && op->done);
    assert(op->kind != IO_OP_RECV_FROM ||
           ((op->msg.msg_namelen | op->msg.msg_controllen) % 8 == 0 &&
            op->msg.msg_namelen + op->msg.msg_controllen <= IO_DATAGRAM_ROOM));
    list_init(&op->state.link);
    op->state.peer = NULL;
    op->state.sent = 0;
    op->state.in_flight = true;
    op->state.cancelled = false;
    op->state.deferred = false;
    io->in_flight++;
    io->backend->submit(io, op);
}

void io_cancel(struct io *io, struct io_op *op)
{
    if (!op->state.in_flight || op->state.cancelled || op->state.deferred)
        return;
    op->state.cancelled = true;
    io->backend->cancel(io, op);
}

void io_close_fd(struct io *io, int fd)
{
    io->backend->close_fd(io, fd);
}

void io_leave_fd(struct io *io, int fd)
{
    if (io->backend->unwatch_fd)
        io->backend->unwatch_fd(io, fd);
    io->backend->close_fd(io, fd);
}

struct io_datagram io_datagram_of(const struct io_op *op, const struct io_buf *buf)
{
    struct datagram_head head;
    char *at = buf->base + sizeof(head);
    memcpy(&head, buf->base, sizeof(head));
    struct io_datagram datagram = {.truncated = head.flags & MSG_TRUNC};
    if (op->msg.msg_namelen) {
        datagram.source = (const struct sockaddr *)at;
        datagram.source_len =
            head.name_len < op->msg.msg_namelen ? head.name_len : op->msg.msg_namelen;
    }
    datagram.control.msg_control = at + op->msg.msg_namelen;
    datagram.control.msg_controllen = head.control_len;
    return datagram;
}

struct io_buf *io_buf_take(struct io *io)
{
    struct io_buf *buf = bufpool_get(&io->pool);
    if (buf)
        io->stats.buffers_held++;
    return buf;
}

uint32_t io_buf_bytes(const struct io *io)
{
    return io->pool.buffer_bytes;
}

struct io_buf *io_buf_make(uint32_t len)
{
    struct io_buf *made = malloc(sizeof(*made) + len);
    if (!made)
        return NULL;
    *made = (struct io_buf){.len = len, .compact = true};
    made->base = made->data = (char *)(made + 1);
    return made;
}

struct io_buf *io_buf_copy(const void *bytes, uint32_t len)
{
    struct io_buf *copy = io_buf_make(len);
    if (copy)
        memcpy(copy->data, bytes, len);
    return copy;
}

bool io_buf_append(const struct io *io, struct io_buf *buf, const struct io_buf *more)
{
    size_t used = (size_t)(buf->data - buf->base) + buf->len;
    if (buf->compact || more->len > io->pool.buffer_bytes - used)
        return false;
    memcpy(buf->data + buf->len, more->data, more->len);
    buf->len += more->len;
    return true;
}

bool io_buffers_scarce(const struct io *io)
{
    return io->stats.buffers_held > io->pool.count_max / SCARCE_PART;
}

struct io_buf *io_buf_compact(struct io *io, struct io_buf *buf)
{
    struct io_buf *small = io_buf_copy(buf->data, buf->len);
    if (!small)
        return buf;
    io_buf_release(io, buf);
    return small;
}

void io_buf_release(struct io *io, struct io_buf *buf)
{
    if (buf->compact) {
        free(buf);
        return;
    }
    struct bufpool *pool = buf->datagram ? &io->datagrams : &io->pool;
    uint64_t *held = buf->datagram ? &io->stats.datagrams_held : &io->stats.buffers_held;
    (*held)--;
    bufpool_put(pool, buf);
}

int64_t io_now_ms(const struct io *io)
{
    return io->now_ms;
}

struct timer_wheel *io_timers(struct io *io)
{
    return &io->timers;
}

struct io_stats io_stats(const struct io *io)
{
    struct io_stats stats = io->stats;
    stats.buffers_allocated = io->pool.count;
    return stats;
}

bool io_trim(struct io *io)
{
    bool buffers = bufpool_trim(&io->pool);
    bool datagrams = bufpool_trim(&io->datagrams);
    return pipepool_trim(&io->pipes) || buffers || datagrams;
}

void io_dry(struct io *io)
{
    if (io->backend->dry)
        io->backend->dry(io);
}

void io_tick(struct io *io)
{
    io->now_ms = clock_now_ms();
}

void io_defer(struct io *io, struct io_op *op, int result)
{
    list_remove(&op->state.link);
    op->state.parked = false;
    op->state.deferred = true;
    op->state.result = result;
    list_push_back(&io->deferred, &op->state.link);
}

void io_park(struct io *io, struct io_op *op)
{
    op->state.parked = true;
    list_push_back(op->kind == IO_OP_RECV_FROM ? &io->parked_datagrams : &io->parked,
                   &op->state.link);
}

void io_hold_datagram(struct io *io, struct io_op *op)
{
    op->state.parked = true;
    list_push_back(&io->unsent, &op->state.link);
}

void io_let_go_datagram(struct io_op *op)
{
    list_remove(&op->state.link);
    op->state.parked = false;
}

static void tell_of_wait(const struct bufpool *pool)
{
    static struct log_limit limit;
    uint32_t suppressed;
    if (!log_limit_pass(&limit, 1, &suppressed))
        return;
    if (pool->lacking)
        log_warn("no memory for another receive buffer: what arrives waits for it");
    else
        log_warn("all %llu receive buffers are in use (%llu MiB): what arrives waits for one",
                 (unsigned long long)pool->count,
                 (unsigned long long)(pool->count * pool->buffer_bytes) >> 20);
}

void io_note_wait(struct io *io, const struct bufpool *pool)
{
    io->stats.buffer_waits++;
    counters_add(COUNTER_BUFFER_WAITS, 1);
    tell_of_wait(pool);
}

static bool lacks(const struct bufpool *pool, const struct list *parked)
{
    return pool->lacking && !list_empty(parked);
}

void io_await_memory(struct io *io, int64_t *wait_ms)
{
    bool buffers = lacks(&io->pool, &io->parked);
    if (!buffers && !lacks(&io->datagrams, &io->parked_datagrams))
        return;
    tell_of_wait(buffers ? &io->pool : &io->datagrams);
    if (!timer_armed(&io->memory_retry))
        timer_start(&io->timers, &io->memory_retry, io->now_ms + MEMORY_RETRY_MS);
    if (*wait_ms < 0 || *wait_ms > MEMORY_RETRY_MS)
        *wait_ms = MEMORY_RETRY_MS; /* it was reckoned without that timer */
}

static void retry_memory(struct timer *timer)
{
    struct io *io = timer->owner;
    io->pool.lacking = io->datagrams.lacking = false;
}

bool io_accept_transient(int error)
{
    switch (error) {
    case -ECONNABORTED:
    case -EINTR:
    case -EPROTO:
    case -EPERM:
    case -ENETDOWN:
    case -ENETUNREACH:
    case -EHOSTDOWN:
    case -EHOSTUNREACH:
    case -ENOPROTOOPT:
    case -ENONET:
        return true;
    default:
        return false;
    }
}

size_t io_message_left(const struct msghdr *msg)
{
    size_t left = 0;
    for (size_t i = 0; i < msg->msg_iovlen; i++)
        left += msg->msg_iov[i].iov_len;
    return left;
}

void io_message_consume(struct msghdr *msg, size_t count)
{
    while (msg->msg_iovlen && count >= msg->msg_iov->iov_len) {
        count -= msg->msg_iov->iov_len;
        msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + msg->msg_iov->iov_len;
        msg->msg_iov->iov_len = 0;
        msg->msg_iov++;
        msg->msg_iovlen--;
    }
    if (count) {
        assert(msg->msg_iovlen);
        msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + count;
        msg->msg_iov->iov_len -= count;
    }
}

static int choose_backend(struct io *io, const struct io_options *options)
{
    if (options->kind != IO_KIND_EPOLL) {
        io->backend = &uring_backend;
        int result = io->backend->create(io, options);
        if (result == 0)
            return 0;
        const char *why = result == -ENOSYS   ? "the kernel has none"
                          : result == -EPERM  ? "forbidden here"
                          : result == -EINVAL ? "the kernel's is older than Linux 6.1"
                          : result == -ENOMEM ? "no memory, or no more may be locked (ulimit -l, "
                                                "LimitMEMLOCK=)"
                                              : strerror(-result);
        if (options->kind == IO_KIND_URING) {
            log_error("io_uring is not available: %s", why);
            return result;
        }
        log_warn("io_uring is not available: %s; using epoll", why);
    }
    io->backend = &epoll_backend;
    int result = io->backend->create(io, options);
    if (result < 0)
        log_error("epoll is not available: %s", strerror(-result));
    return result;
}

static int64_t wait_bound_ms(const struct io *io, int wait_ms)
{
    if (!list_empty(&io->deferred))
        return 0;
    int64_t next_ms = timer_wheel_next_ms(&io->timers);
    if (next_ms == DEADLINE_NEVER)
        return wait_ms;
    int64_t until_next_ms = next_ms > io->now_ms ? next_ms - io->now_ms : 0;
    return wait_ms >= 0 && wait_ms < until_next_ms ? wait_ms : until_next_ms;
}

/* Ends that callbacks defer meanwhile are left for the next turn. */
static void report_deferred(struct io *io)
{
    struct list ended;
    list_move_all(&ended, &io->deferred);
    while (!list_empty(&ended)) {
        struct io_op *op = container_of(ended.next, struct io_op, state.link);
        list_remove(&op->state.link);
        io_finish(io, op, op->state.result);
    }
}
