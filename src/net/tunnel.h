/*
 * A tunnel: bytes pumped both ways between two streams until both have ended, as a state machine
 * without a coroutine stack. Carries half-closes over, never receives what the other side cannot
 * take, ends when nothing moves for the idle time. A direction copies its bytes (tunnel_copy.c), or
 * while much flows between plain sockets has the kernel hand them on (tunnel_splice.c).
 *
 *   each direction:  reading ──bytes──▶ sending ──▶ reading ... ──FIN──▶ shut
 *   both shut, an error on either side, or idle ─▶ done(result) ─▶ both streams closed
 */
#ifndef NET_TUNNEL_H
#define NET_TUNNEL_H

#include "net/stream.h"

#include <stdbool.h>
#include <stdint.h>

struct tunnel_options {
    bool copy_only;                  /* never splice (tunnel_splice.c) */
    uint32_t idle_timeout_ms;        /* 0: none; nothing moved either way for so long */
    uint32_t half_closed_timeout_ms; /* as that, once one side has ended; 0: as that */
    int64_t deadline;                /* DEADLINE_NEVER: none; of the whole tunnel */
};

enum tunnel_reason {
    TUNNEL_ENDED, /* both sides said FIN */
    TUNNEL_IDLE,
    TUNNEL_DEADLINE,
    TUNNEL_CLIENT_FAILED, /* an error on the first stream */
    TUNNEL_PEER_FAILED,   /* on the second */
    TUNNEL_CANCELLED,
    TUNNEL_LEFT, /* it goes on in another process */
};

struct tunnel_result {
    enum tunnel_reason reason;
    int error;             /* negative errno of a failure, else 0 */
    uint64_t client_bytes; /* sent on from the first stream to the second */
    uint64_t peer_bytes;   /* and back */
};

/* "ended", "idle_timeout", ...: for logs. */
const char *tunnel_reason_name(enum tunnel_reason reason);

struct tunnel;

/* Takes over two started streams, with whatever is queued in them; no coroutine may be using them.
 * Their on_arrival is replaced; their on_closed and owner stay, and are called when the tunnel has
 * closed them. `done` (may be NULL) is called once, from the loop, before that. Returns NULL when
 * memory is exhausted: then nothing was taken over. Does not suspend. */
struct tunnel *tunnel_start(struct stream *client, struct stream *peer,
                            const struct tunnel_options *options,
                            void (*done)(const struct tunnel_result *result, void *owner),
                            void *owner);

/* Ends it early: done is called with TUNNEL_CANCELLED. */
void tunnel_cancel(struct tunnel *tunnel);

/*
 * Moving to another process; tunnel_move.c. What is under way is stopped and what it held is queued
 * in the streams again, so that all there is to know of a tunnel are its descriptors, a struct
 * tunnel_state and the queued bytes. Whoever gets these goes on where the first has stopped.
 *
 *   tunnel_freeze ──▶ frozen() ──▶ tunnel_describe, tunnel_write_pending
 *        │               ├──▶ tunnel_thaw: it goes on here
 *        │               └──▶ tunnel_leave: it goes on there
 *        └── over(): it cannot be, or it has ended; from frozen on at any time
 */

struct tunnel_state;

/* The memory of whoever asks for it, until one of its ends. */
struct tunnel_freeze {
    void (*frozen)(struct tunnel_freeze *freeze); /* called once, from the loop */
    /* The freeze is over, and of no use: either frozen will not be called, or what it led to is to
     * be dropped. The tunnel goes on or ends by itself, and is not to be touched. */
    void (*over)(struct tunnel_freeze *freeze);
};

/* May another process go on with it? Not if there is TLS, or an end that is another coroutine; nor
 * if it is just beginning, ending or frozen already. */
bool tunnel_movable(const struct tunnel *tunnel);

/* Stops all that is under way. False if memory is exhausted: then nothing has changed. */
bool tunnel_freeze(struct tunnel *tunnel, struct tunnel_freeze *freeze);

/* What there is to know of a frozen one, and its descriptors, which stay its own; leaves what is
 * not the tunnel's alone. */
void tunnel_describe(const struct tunnel *tunnel, struct tunnel_state *state, int *client_fd,
                     int *peer_fd);

/* Writes the bytes of a frozen one that are on their way to a new file in memory. Returns its
 * descriptor or a negative errno. */
int tunnel_write_pending(const struct tunnel *tunnel);

/* Goes on with a frozen one. */
void tunnel_thaw(struct tunnel *tunnel);

/* Gives a frozen one up, whose connections live on elsewhere: `done` is called with TUNNEL_LEFT,
 * later. */
void tunnel_leave(struct tunnel *tunnel);

/* A tunnel that has begun in another process: as tunnel_start, but the streams must not have been
 * started. It is frozen, and until it is thawed it belongs to that other process: should it end,
 * its connections are left alone. */
struct tunnel *tunnel_adopt(struct stream *client, struct stream *peer,
                            const struct tunnel_state *state, struct tunnel_freeze *freeze,
                            void (*done)(const struct tunnel_result *result, void *owner),
                            void *owner);

/* Reads what tunnel_write_pending has written. Returns 0 or a negative errno: -EPROTO if it is not
 * of the size that the state says. */
int tunnel_read_pending(struct tunnel *tunnel, const struct tunnel_state *state, int file);

#endif
