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
struct tunnel;

struct stream {
    struct io *io;
    int fd;               /* -1 when closed */
    struct io_op recv;    /* multishot, in flight while more may be queued */
    struct timer hangup;  /* behind the end: when to look for a reset next */
    struct io_op *send;   /* the send under way, on its coroutine's stack; NULL if none */
    struct io_buf *first; /* received and unread, oldest first; owned */
    struct io_buf *last;
    uint32_t queued;        /* buffers in that list */
    int end;                /* STREAM_OPEN, STREAM_EOF, or the negative error that ended it */
    bool started;           /* stream_start was called */
    bool watch_hangup;      /* after an end, hear of a reset too (reported as an arrival) */
    bool closing;           /* stream_close was called */
    bool reset;             /* close with RST */
    bool closed;            /* the close has finished */
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
    struct address local;
    uint64_t bytes_in;
    uint64_t bytes_out;
};

enum { STREAM_OPEN = 1, STREAM_EOF = 0 };

/* Prepares a stream over a connected descriptor, which it then owns. */
void stream_init(struct stream *stream, struct io *io, int fd);

/* Connects to an address and prepares the stream. Returns 0 or a negative errno; on failure
 * nothing is left open. */
int stream_connect(struct stream *stream, struct io *io, const struct address *to,
                   int64_t deadline);

/* Arms receiving; arrivals are queued. */
void stream_start(struct stream *stream);

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

/* Ends receiving with an error of ours: what is queued can still be read, then readers get `error`
 * (negative). Nothing is closed. */
void stream_fail(struct stream *stream, int error);

/* Sends FIN; more may still be received. */
void stream_shutdown(struct stream *stream);

/* Closes: ends what is in flight, then the descriptor, then calls on_closed. Readers are woken with
 * -ECANCELED. Does not suspend. */
void stream_close(struct stream *stream);

/* As stream_close, with a TCP reset. */
void stream_abort(struct stream *stream);

/* True if nothing unread, no end and no error is known: an idle connection fit for reuse. */
bool stream_quiet(const struct stream *stream);

#endif
