/*
 * What the two back ends share; private to src/io.
 *
 * An operation in flight is with the kernel (io_uring) or waits for its descriptor (epoll), or is
 * parked (a receive without a buffer, a datagram before the kernel is entered) or deferred (its
 * result is known, `done` is to be called).
 */
#ifndef IO_BACKEND_H
#define IO_BACKEND_H

#include "io/bufpool.h"
#include "io/io.h"

struct io_backend {
    const char *name;
    /* Opens what it needs and sets io->impl. Returns 0 or a negative errno with nothing left. */
    int (*create)(struct io *io, const struct io_options *options);
    void (*destroy)(struct io *io);
    /* Waits (-1: no bound), calls io_tick and reports completions. Returns 0 or a negative errno.
     */
    int (*turn)(struct io *io, int64_t wait_ms);
    void (*submit)(struct io *io, struct io_op *op);
    /* The operation is in flight and not deferred; it may be parked. */
    void (*cancel)(struct io *io, struct io_op *op);
    void (*close_fd)(struct io *io, int fd);
    /* Where closing is not enough as long as others hold the socket open, else NULL. */
    void (*unwatch_fd)(struct io *io, int fd);
    /* See io_dry; NULL where no buffers wait. */
    void (*dry)(struct io *io);
};

/* What lies before a datagram in its buffer, behind it room for the address and for the control
 * messages, in this order: as the kernel writes it for io_uring (struct io_uring_recvmsg_out). */
struct datagram_head {
    uint32_t name_len;
    uint32_t control_len;
    uint32_t payload_len;
    uint32_t flags; /* MSG_TRUNC, MSG_CTRUNC */
};

extern const struct io_backend uring_backend;
extern const struct io_backend epoll_backend;

/* The pipes of pipe.h. */
struct pipepool {
    struct io_pipe *free; /* empty ones; owned */
    uint32_t free_count;  /* pipes in that list */
    uint32_t free_floor;  /* its lowest count since the last trim */
    uint32_t count;       /* pipes that exist */
    uint32_t pipe_bytes;  /* capacity that is asked for */
    int64_t retry_ms;     /* before then none is opened */
    bool lacking;         /* none was to be had when last asked for */
};

void pipepool_init(struct pipepool *pool, uint32_t pipe_bytes);

/* Closes what has lain unused since the last call. Returns true if there was any. */
bool pipepool_trim(struct pipepool *pool);

/* Closes every pipe; none may be in use. */
void pipepool_fini(struct pipepool *pool);

struct io {
    const struct io_backend *backend;
    void *impl; /* the back end's own; owned by it */
    struct timer_wheel timers;
    int64_t now_ms;
    bool asked_kernel; /* in this turn: what had arrived is known */
    struct bufpool pool;
    struct pipepool pipes;
    struct bufpool datagrams;     /* larger ones: each takes any datagram whole */
    struct timer memory_retry;    /* armed while receives wait for memory */
    struct list deferred;         /* operations whose end is reported in the next turn */
    struct list parked;           /* receives that wait for a buffer */
    struct list parked_datagrams; /* as these, of datagrams */
    struct list unsent;           /* datagrams, until the kernel is entered next */
    uint64_t in_flight;           /* operations */
    struct io_stats stats;
};

/* Reads the clock; once a turn, after waiting. */
void io_tick(struct io *io);

/* Ends the operation, with the buffer of a receive or NULL: it is the caller's again, and may be
 * gone when this returns. */
static inline void io_finish_with(struct io *io, struct io_op *op, int result, struct io_buf *buf)
{
    op->state.in_flight = false;
    io->in_flight--;
    io->stats.completions++;
    io->stats.buffers_held += buf != NULL;
    op->done(op, result, buf, false);
}

static inline void io_finish(struct io *io, struct io_op *op, int result)
{
    io_finish_with(io, op, result, NULL);
}

/* Reports an event of a multishot operation that goes on; it may be cancelled when this returns. */
static inline void io_report(struct io *io, struct io_op *op, int result, struct io_buf *buf)
{
    io->stats.completions++;
    if (buf && buf->datagram)
        io->stats.datagrams_held++;
    else
        io->stats.buffers_held += buf != NULL;
    op->done(op, result, buf, true);
}

/* Has the end reported in the next turn. */
void io_defer(struct io *io, struct io_op *op, int result);

/* Bytes before a datagram in its buffer. */
static inline size_t io_datagram_head_bytes(const struct io_op *op)
{
    return sizeof(struct datagram_head) + op->msg.msg_namelen + op->msg.msg_controllen;
}

/* A receive found no buffer: it waits among the parked until the back end takes it up again. */
void io_park(struct io *io, struct io_op *op);

/* A datagram waits for the kernel to be entered. */
void io_hold_datagram(struct io *io, struct io_op *op);

/* Takes it from those that wait. */
void io_let_go_datagram(struct io_op *op);

/* A receive finds no buffer in that pool: counts it, and now and then says so. */
void io_note_wait(struct io *io, const struct bufpool *pool);

/* Where parked receives wait for memory, which may be there again without anything happening here:
 * bounds the wait of this turn, and has it tried again then. */
void io_await_memory(struct io *io, int64_t *wait_ms);

/* Does a failed accept concern only the connection that was to be accepted? */
bool io_accept_transient(int error);

/* Bytes that the message has left to send. */
size_t io_message_left(const struct msghdr *msg);

/* Takes the first `count` bytes out of the message. */
void io_message_consume(struct msghdr *msg, size_t count);

#endif
