/*
 * Input and output as completions: the caller owns an io_op, submits it, and its `done` is called
 * from the loop when the operation has ended (or, for the multishot ones, at every event). Two
 * back ends, io_uring and epoll, behave alike; uring.c and epoll.c are the only files that know
 * the kernel's interface. Nothing here suspends.
 *
 *   io_submit ──▶ in flight ──▶ done(op, result)          one-shot: ended, op is the caller's again
 *                    │  └─────▶ done(op, result), more    multishot: goes on
 *                    └ io_cancel ──▶ done(op, -ECANCELED) or the real result, whichever was first
 *
 * `done` is never called from inside io_submit or io_cancel, only from io_turn.
 * Memory that an operation refers to must stay until its last `done`.
 */
#ifndef IO_IO_H
#define IO_IO_H

#include "base/list.h"
#include "io/timer.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct io;

enum io_kind { IO_KIND_AUTO, IO_KIND_URING, IO_KIND_EPOLL };

/* One pooled receive buffer. Whoever holds the pointer owns it and gives it back with
 * io_buf_release; `data` and `len` may be moved and shortened as bytes are consumed. */
struct io_buf {
    char *data;          /* first byte not yet consumed */
    uint32_t len;        /* bytes from data */
    bool compact;        /* of exact size, not of the pool */
    bool datagram;       /* of the pool of datagrams */
    struct io_buf *next; /* for the holder's queue */
    char *base;          /* start of the block; private to the pool */
};

enum io_op_kind {
    IO_OP_ACCEPT,  /* multishot, unless `once`: result is a connected, non-blocking, close-on-exec
                      descriptor; a multishot one may take all that wait before it can be stopped */
    IO_OP_RECV,    /* multishot, unless `once`: result > 0 with `buf`; 0 is the end of the stream. A
                      multishot one takes all that is there, into as many buffers */
    IO_OP_SEND,    /* sends all of `msg`, however many kernel operations that takes; result is the
                      byte count of the whole message, or negative (some may have been sent) */
    IO_OP_CONNECT, /* of a non-blocking descriptor; result 0 when connected */
    IO_OP_POLL, /* one-shot poll(2) events; result is the ready mask, in which POLLERR, POLLHUP and
                   POLLRDHUP may be set unasked */
    IO_OP_READ, /* one pread(2) of a regular file; result is the byte count */
    IO_OP_RECV_FROM, /* multishot: result is the length of a datagram, which may be 0, with `buf`;
                        io_datagram_of tells where it came from. An error that the network reported
                        (ECONNREFUSED) ends the operation, not the socket */
    IO_OP_SEND_TO, /* one datagram, `msg`; those of one turn are handed to the kernel together, and
                      until then (io_op_unsent) msg may be changed. A full socket is waited for,
                      or with MSG_DONTWAIT in msg_flags ends it with -EAGAIN */
};

struct io_op {
    /* Filled by the caller. */
    enum io_op_kind kind : 8; /* small, since every connection holds one of these */
    int fd;
    union {
        struct msghdr msg; /* SEND: iovecs are consumed (changed) as they are sent. SEND_TO: they
                              are not. RECV_FROM: msg_namelen and msg_controllen say how much room
                              there is to be for addresses and control messages, each a
                              multiple of 8, at most IO_DATAGRAM_ROOM together; nothing else is
                              looked at */
        struct {
            const struct sockaddr *address;
            socklen_t address_len;
        } connect;
        short events; /* POLL */
        bool once;    /* ACCEPT, RECV: ends with the first */
        struct {
            void *data;
            size_t len;
            int64_t offset;
        } read;
    };
    /* Result: >= 0 or a negative errno. `buf` is non-NULL only for RECV with result > 0, and for
     * RECV_FROM with result >= 0, and then belongs to the callee. `more`: the operation stays in
     * flight; otherwise it has ended. */
    void (*done)(struct io_op *op, int result, struct io_buf *buf, bool more);
    void *owner; /* for the caller's use */

    /* Private to src/io. */
    struct {
        struct list link;   /* parked, deferred or (epoll) runnable; or alone */
        struct io_op *peer; /* epoll: next operation that waits for the same descriptor */
        uint64_t sent;      /* SEND: bytes so far */
        int result;         /* deferred result */
        bool in_flight;
        bool cancelled; /* io_cancel was called */
        bool parked;    /* RECV: waits for a buffer; SEND_TO: for the kernel to be entered */
        bool deferred;  /* has ended; `done` is to be called in the next turn */
    } state;
};

enum { IO_DATAGRAM_ROOM = 256 };

/* What is known of a datagram beside its bytes; points into its buffer. */
struct io_datagram {
    const struct sockaddr *source; /* NULL if none was asked for */
    socklen_t source_len;
    struct msghdr control; /* its control messages only, for CMSG_FIRSTHDR */
    bool truncated;        /* it was longer than a buffer */
};

struct io_options {
    enum io_kind kind;
    uint32_t buffer_bytes;       /* one receive buffer; 0: 32768 */
    uint64_t buffer_max_bytes;   /* all receive buffers of this worker; 0: 256 MiB */
    uint64_t datagram_max_bytes; /* all buffers of datagrams; 0: 64 MiB */
    uint32_t entries;            /* io_uring submission entries; 0: 4096 */
    uint32_t pipe_bytes;         /* one pipe of those that bytes are spliced through; 0: 524288 */
};

/* Opens a loop. With IO_KIND_AUTO io_uring is tried first, and epoll is taken (and logged, with the
 * reason) where it is missing or forbidden. Returns 0 or a negative errno, logged. */
int io_create(struct io **io, const struct io_options *options);

/* Closes it. No operation may be in flight. */
void io_destroy(struct io *io);

/* "io_uring" or "epoll". */
const char *io_backend_name(const struct io *io);

/* Submits what is queued, waits for at least one completion, timer or (with wait_ms >= 0) at most
 * wait_ms milliseconds (-1: no bound; 0: do not wait), then calls done callbacks and due timers.
 * One kernel entry when all goes well. Returns 0 or a negative errno. */
int io_turn(struct io *io, int wait_ms);

/* Starts an operation. Always succeeds: failures are reported to `done`. */
void io_submit(struct io *io, struct io_op *op);

/* Asks for an early end of an operation in flight; harmless on one that is not. */
void io_cancel(struct io *io, struct io_op *op);

static inline bool io_op_in_flight(const struct io_op *op)
{
    return op->state.in_flight;
}

/* Has a SEND_TO not been handed to the kernel yet? */
static inline bool io_op_unsent(const struct io_op *op)
{
    return op->state.parked;
}

/* How much of a SEND the kernel has taken. */
static inline uint64_t io_op_sent(const struct io_op *op)
{
    return op->state.sent;
}

/* The error that an operation has ended with while its `done` is still to be called; else 0. */
static inline int io_op_failure(const struct io_op *op)
{
    return op->state.deferred && op->state.result < 0 ? op->state.result : 0;
}

/* Closes a descriptor on which no operation is in flight (a plain close, batched if possible). */
void io_close_fd(struct io *io, int fd);

/* As io_close_fd, of a socket that another process goes on with: nothing of it is heard here any
 * more. */
void io_leave_fd(struct io *io, int fd);

/* Gives a receive buffer back to the pool. */
void io_buf_release(struct io *io, struct io_buf *buf);

/* What lies before a datagram that this operation received, until its buffer is given back or its
 * data are moved. */
struct io_datagram io_datagram_of(const struct io_op *op, const struct io_buf *buf);

/* An empty buffer of the pool to fill, of io_buf_bytes; NULL at its bound. */
struct io_buf *io_buf_take(struct io *io);
uint32_t io_buf_bytes(const struct io *io);

/* A buffer outside the pool that holds a copy of these bytes; NULL when memory is exhausted. */
struct io_buf *io_buf_copy(const void *bytes, uint32_t len);

/* As this, with the bytes still to be filled in. */
struct io_buf *io_buf_make(uint32_t len);

/* Appends the bytes of one buffer to another, if there is room behind what that holds. */
bool io_buf_append(const struct io *io, struct io_buf *buf, const struct io_buf *more);

/* Are many receive buffers held? Then nobody should keep one that he is not about to use. */
bool io_buffers_scarce(const struct io *io);

/* Moves what a buffer holds to memory of just that size and gives the buffer back to the pool.
 * Returns what holds the bytes now: the buffer itself when memory is exhausted. */
struct io_buf *io_buf_compact(struct io *io, struct io_buf *buf);

/* Gives back buffers and pipes that have lain unused since the last call: half of the buffers, so
 * that those of bursts stay for a while. Returns true if there were any. */
bool io_trim(struct io *io);

/* Gives back what the buffers take that wait for what is received next; they stay where they are,
 * and whoever fills one finds it fresh. For calm times. */
void io_dry(struct io *io);

/* Time of this turn (monotonic milliseconds; read once a turn) and the timers. */
int64_t io_now_ms(const struct io *io);
struct timer_wheel *io_timers(struct io *io);

/* Figures for the log and for tests. */
struct io_stats {
    uint64_t turns; /* kernel entries */
    uint64_t completions;
    uint64_t buffers_allocated; /* blocks that exist now */
    uint64_t buffers_held;      /* of these, owned by callers */
    uint64_t buffer_waits;      /* times a receive had to wait for a buffer */
    uint64_t datagrams_held;    /* buffers of datagrams that are owned by callers */
};
struct io_stats io_stats(const struct io *io);

#endif
