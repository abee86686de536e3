/*
 * A byte stream: a connected socket with its queue of received buffers. Coroutines read and write
 * it with deadlines; while no coroutine reads, the owner's callback hears of arrivals, so that an
 * idle connection costs one armed receive and no stack.
 *
 * Back-pressure: received and unread buffers are bounded (STREAM_QUEUE_MAX, plus what the kernel
 * completes in the turn in which the bound is met); at the bound the receive is stopped, and
 * started again when the reader catches up.
 *
 *   arm ──▶ receiving ──(queue full)──▶ stopped ──(queue drained)──▶ receiving
 *               └──(end or error)──▶ ended ──(watch_hangup)──▶ looking for a reset
 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "io/io.h"
#include "io/timer.h"
#include "net/address.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum { STREAM_QUEUE_MAX = 4 }; /* buffers received ahead of the reader */

struct coro;
struct stream;
struct tunnel;

/* One send under way, without a coroutine; the memory of whoever starts it. */
struct stream_write {
    struct iovec *iov; /* what is left of it; changed as it is sent */
    unsigned count;
    /* Called from the loop when all is sent (the number of bytes) or nothing more will be (a
     * negative errno). */
    void (*done)(struct stream_write *write, int result);
    void *owner;     /* for done */
    bool background; /* of a filter by itself: others wait for its end instead of being refused */

    /* Private to the stream. */
    struct io_op op;
    struct stream *stream;
    struct iovec sealed; /* behind a filter: what is being sent */
    uint64_t taken;      /* behind a filter: bytes of iov that were sealed; filters count */
    uint64_t sent;       /* bytes of iov that were sent; for done, too, whatever the result */
    bool cancelled;
};

/*
 * What turns the bytes of a stream over on their way (src/tls), so that its users see the same
 * stream. A stream without one passes them as they are. Nothing here suspends.
 */
struct stream_filter {
    /* Bytes have come from the network: takes the buffer, calls stream_deliver with what is in it
     * for the reader and stream_fail at its end. */
    void (*received)(struct stream *stream, struct io_buf *buf);
    /* The network has ended; returns what that is for the reader: STREAM_EOF or an error. */
    int (*ended)(struct stream *stream);
    /* Seals the next bytes of a write, advancing it, into *sealed, which stays valid until
     * `sent`. Returns the length of *sealed, 0 when there is nothing to send, or an error. */
    int (*seal)(struct stream *stream, struct stream_write *write, struct iovec *sealed);
    void (*sent)(struct stream *stream);
    /* Nothing more will be written: what must be said of that is put with what is to be sealed. */
    void (*shut)(struct stream *stream);
    /* The descriptor is being closed: frees all. */
    void (*closed)(struct stream *stream);
};

/* As whose its bytes are counted. */
enum stream_side { STREAM_UNCOUNTED, STREAM_OF_CLIENT, STREAM_OF_PEER };

struct stream {
    struct io *io;
    int fd;                             /* -1 when closed */
    enum stream_side side;              /* set by whoever opens it */
    struct io_op recv;                  /* multishot, in flight while more may be queued */
    struct timer hangup;                /* behind the end: when to look for a reset next */
    struct stream_write *write;         /* under way, or NULL */
    struct stream_write *next_write;    /* waits for the filter's own; NULL if none */
    const struct stream_filter *filter; /* or NULL */
    void *filter_state;
    struct io_buf *first; /* received and unread, oldest first; owned */
    struct io_buf *last;
    uint16_t queued;    /* buffers in that list */
    int16_t send_error; /* the first that the network has ended a write with; 0: none */
    int end;            /* STREAM_OPEN, STREAM_EOF, or the negative error that ended it */
    bool shut;          /* stream_shutdown was called */
    bool sending;       /* a coroutine is inside stream_send */
    bool started;       /* stream_start was called */
    bool paused;        /* stream_pause was called */
    bool piecewise;     /* receives a buffer at a time: the rest of what comes may be spliced */
    bool watch_hangup;  /* after an end, hear of a reset too (reported as an arrival) */
    bool closing;       /* stream_close was called */
    bool reset;         /* close with RST */
    bool left;          /* stream_leave was called */
    bool movable;       /* a connection to somebody outside: another process may go on with it */
    bool closed;        /* the close has finished */
    bool local_socket;  /* of this machine (unix:), which has no TCP to ask */
    uint32_t send_stall_ms; /* a send that the peer acknowledges nothing of for so long fails with
                               -ETIMEDOUT; 0: only the deadline counts */
    struct coro *reader;    /* suspended in stream_recv, or NULL */
    /* Called from the loop when something arrives while no coroutine reads; may be NULL. */
    void (*on_arrival)(struct stream *stream);
    /* Called when a close has finished and the memory may be freed; may be NULL. */
    void (*on_closed)(struct stream *stream);
    void *owner;           /* for the callbacks */
    struct tunnel *tunnel; /* that has taken the stream over, or NULL */
    struct address remote;
    const struct address *local; /* where a client has come to, else NULL; borrowed */
    uint64_t bytes_in;
    uint64_t bytes_out;
};

enum { STREAM_OPEN = 1, STREAM_EOF = 0 };

/* Counts bytes that were received or sent; for the stream and those that do it in its place. */
void stream_count_in(struct stream *stream, uint32_t bytes);
void stream_count_out(struct stream *stream, uint32_t bytes);

/* Prepares a stream over a connected descriptor, which it then owns. */
void stream_init(struct stream *stream, struct io *io, int fd);

/* Connects to an address and prepares the stream. Returns 0 or a negative errno; on failure
 * nothing is left open. */
int stream_connect(struct stream *stream, struct io *io, const struct address *to,
                   int64_t deadline);

/* Has TCP find out that the peer has vanished: after `keepalive_ms` without a sign of life (0:
 * never) it is asked for one, and who gives none three times, a third of that time apart, fails
 * with -ECONNRESET. Bytes of ours that it does not acknowledge, or has no room for, fail it after
 * `ack_timeout_ms` (0: what is not acknowledged after some 15 minutes, as the kernel sees fit). */
void stream_watch_peer(struct stream *stream, uint32_t keepalive_ms, uint32_t ack_timeout_ms);

/* Arms receiving; arrivals are queued. */
void stream_start(struct stream *stream);

/* Stops receiving, so that others may take bytes from the descriptor. It is over, which is reported
 * as an arrival, when `recv` is no longer in flight; until then bytes may still be queued. */
void stream_pause(struct stream *stream);

/* Receives again. */
void stream_resume(struct stream *stream);

/* Whoever took bytes from a paused stream's descriptor has met its end: 0 for FIN, or a negative
 * errno. */
void stream_received_end(struct stream *stream, int result);

/* Waits until something is queued. Returns 1 (stream->first is readable), 0 at the end of the
 * stream, or a negative errno. With DEADLINE_NOW it never suspends: -ETIMEDOUT if nothing is there.
 */
int stream_wait_readable(struct stream *stream, int64_t deadline);

/* Takes the oldest queued buffer, or NULL; the caller owns it. */
struct io_buf *stream_take(struct stream *stream);

/* Puts a buffer that was taken back in front of the queue (for bytes read too far). */
void stream_untake(struct stream *stream, struct io_buf *buf);

/* Drops `count` bytes from the front of the oldest queued buffer. */
void stream_consume(struct stream *stream, uint32_t count);

/* Sends all bytes of the iovecs (which it changes); one caller at a time. Returns 0 or a negative
 * errno: -ETIMEDOUT at the deadline or when the peer stalls (send_stall_ms). */
int stream_send(struct stream *stream, struct iovec *iov, unsigned count, int64_t deadline);

/* Starts a send without a coroutine; one at a time, stream_send included. Returns 0: write->done
 * will be called; 1: there was nothing to send; or a negative errno: it was not started. */
int stream_write_start(struct stream *stream, struct stream_write *write);

/* Asks for an early end: done is called, with -ECANCELED unless it is through already. */
void stream_write_cancel(struct stream_write *write);

/* Grows with what the peer takes: what its TCP has acknowledged, or, of a local socket, what no
 * longer waits in the kernel. Only good for finding that it has changed. */
uint64_t stream_bytes_acknowledged(const struct stream *stream);

/* Puts a filter in between; what is queued runs through it. To be called when nothing is being
 * sent. The stream frees the state, through the filter. */
void stream_set_filter(struct stream *stream, const struct stream_filter *filter, void *state);

/* For filters: queues bytes for the reader. */
void stream_deliver(struct stream *stream, struct io_buf *buf);

/* Ends receiving, for a reason of ours: what is queued can still be read, then readers get `error`
 * (negative, or STREAM_EOF). Nothing is closed. */
void stream_fail(struct stream *stream, int error);

/* Says that nothing more will be sent (FIN); more may still be received. */
void stream_shutdown(struct stream *stream);

/* Closes: ends what is in flight, then the descriptor, then calls on_closed. Readers are woken with
 * -ECANCELED. Does not suspend. */
void stream_close(struct stream *stream);

/* As stream_close, with a TCP reset. */
void stream_abort(struct stream *stream);

/* Whoever is at the other end was closed by stream_abort, of which the kernel does not tell a local
 * socket: the end that will be received is that of a reset. */
void stream_expect_reset(struct stream *stream);

/* As stream_close, but the connection lives on: another process has a descriptor of it, too. */
void stream_leave(struct stream *stream);

/* True if nothing unread, no end and no error is known: an idle connection fit for reuse. */
bool stream_quiet(const struct stream *stream);

#endif
