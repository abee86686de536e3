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
};

struct tunnel_result {
    enum tunnel_reason reason;
    int error;             /* negative errno of a failure, else 0 */
    uint64_t client_bytes; /* sent on from the first stream to the second */
    uint64_t peer_bytes;   /* and back */
};

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

#endif
