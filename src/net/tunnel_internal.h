/*
 * The parts of a tunnel, for tunnel.c (its life), tunnel_copy.c (bytes by way of our buffers) and
 * tunnel_splice.c (bytes by way of a pipe). A direction that waits for bytes to copy holds nothing
 * but what is here.
 */
#ifndef NET_TUNNEL_INTERNAL_H
#define NET_TUNNEL_INTERNAL_H

#include "io/pipe.h"
#include "net/tunnel.h"

enum { TUNNEL_PIECES_MAX = 8 }; /* received buffers sent on at once */

/* Copied bytes on their way; owned by the direction. */
struct tunnel_send {
    struct stream_write write;
    struct iovec iov[TUNNEL_PIECES_MAX];
    struct io_buf *held; /* being sent; owned */
};

/* A direction that is spliced. */
struct tunnel_splice {
    struct io_op poll;    /* of the source, in flight while waiting */
    struct io_pipe *pipe; /* while it holds bytes, else NULL; owned */
    struct timer dry;
    bool moved;      /* something, since the timer was started */
    unsigned little; /* fills of few bytes, one after the other */
};

/* One way through the tunnel. */
struct direction {
    struct tunnel *tunnel;
    struct stream *from;
    struct stream *to;
    struct tunnel_send *send;     /* under way, or NULL; owned */
    struct tunnel_splice *splice; /* while bytes are spliced, else NULL; owned */
    uint64_t bytes;               /* sent on */
    uint32_t streak_bytes;        /* copied in large pieces, one after the other */
    bool shut;                    /* the FIN has been carried over */
};

struct tunnel {
    struct io *io;
    struct direction out; /* client to peer */
    struct direction back;
    struct tunnel_options options;
    struct timer timer;
    int64_t moved_ms;      /* when something was last received or sent */
    uint64_t acknowledged; /* by both sides, when last looked at */
    struct tunnel_result result;
    struct tunnel_freeze *freeze; /* asked for, or NULL; its owner's */
    bool begun;
    bool ending;
    bool frozen;   /* nothing is under way, and its owner knows */
    bool borrowed; /* of another process, until it is thawed here */
    void (*done)(const struct tunnel_result *result, void *owner);
    void *owner;
};

/* --- tunnel.c --------------------------------------------------------------------------------- */

/* Goes on with a direction of which nothing is under way. */
void tunnel_pump(struct direction *direction);

/* Something that was under way has ended while the tunnel ends: then it returns true, and the
 * direction is to be left alone. */
bool tunnel_ending(struct tunnel *tunnel);

/* Ends the tunnel because of one of its streams. */
void tunnel_fail(struct direction *direction, const struct stream *failed, int error);

/* Bytes were received or sent. */
void tunnel_moved(struct tunnel *tunnel);

/* Begins a tunnel, or goes on with one that was frozen: arms its timer and pumps. */
void tunnel_go_on(struct tunnel *tunnel);

/* Has both streams tell the tunnel what arrives. */
void tunnel_attach(struct tunnel *tunnel);

/* Ends it. */
void tunnel_end(struct tunnel *tunnel, enum tunnel_reason reason, int error);

/* --- tunnel_move.c ---------------------------------------------------------------------------- */

/* Something that was under way has ended while the tunnel is being frozen. */
void tunnel_settle(struct tunnel *tunnel);

/* A send was stopped: queues what is left of it. */
void tunnel_take_back(struct direction *direction, struct tunnel_send *send);

/* --- tunnel_copy.c ---------------------------------------------------------------------------- */

/* Sends on what is queued. Returns 1: a send is under way; 0: nothing is queued; or an error. */
int tunnel_copy(struct direction *direction);

/* Sends a copy of these bytes. Returns 0 or an error. */
int tunnel_copy_bytes(struct direction *direction, const void *bytes, uint32_t len);

/* --- tunnel_splice.c -------------------------------------------------------------------------- */

/* Flows so much that splicing is worth it, and can it be had? */
bool tunnel_splice_pays(const struct direction *direction);

/* Splices from now on; the stream is paused, and nothing of it queued. Returns 0 or -ENOMEM. */
int tunnel_splice_start(struct direction *direction);

/* The bytes that were copied because the socket was full have been sent. */
void tunnel_splice_sent(struct direction *direction);

/* Asks what is under way to end. */
void tunnel_splice_cancel(struct direction *direction);

/* Is something under way that needs the descriptors? */
bool tunnel_splice_busy(const struct direction *direction);

/* Gives everything back; nothing may be under way. */
void tunnel_splice_free(struct direction *direction);

#endif
