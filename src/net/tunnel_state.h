/*
 * What another process has to know to go on with a tunnel, and the message that tells it: see
 * server/hand_over.h. Pure: nothing suspends, nothing is allocated.
 *
 *   magic, version, kind, flags │ counts and times │ addresses │ texts, each behind its length
 *
 * Numbers are those of the machine, for it does not leave the machine. Times are monotonic, which
 * all processes share. Whoever does not understand a message to its last byte refuses it.
 */
#ifndef NET_TUNNEL_STATE_H
#define NET_TUNNEL_STATE_H

#include "base/slice.h"
#include "net/address.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    TUNNEL_STATE_VERSION = 2,
    TUNNEL_STATE_LOGS_MAX = 8,
    TUNNEL_STATE_MAX_BYTES = 16384,
    TUNNEL_TARGET_MAX_BYTES = 1024,
    TUNNEL_PENDING_MAX_BYTES = 8 << 20, /* of both ways together */
};

enum tunnel_kind {
    TUNNEL_OF_LAYER4 = 1,
    TUNNEL_OF_HTTP = 2, /* behind an Upgrade or a CONNECT */
};

/* A line of HTTP's that was begun with the request; what comes in between is known at the end. */
struct tunnel_log_line {
    struct slice text;
    uint16_t time_at;
    uint16_t amounts_at; /* not before time_at */
};

/* An access log that is owed a line at the end. */
struct tunnel_log {
    uint8_t format; /* enum access_log_format */
    struct slice target;
    struct tunnel_log_line line; /* empty for layer 4 */
};

struct tunnel_state {
    enum tunnel_kind kind;
    struct slice listener;        /* the key of the one that has accepted it; see worker.h */
    struct address client_remote; /* as the PROXY protocol says, if it was spoken */
    struct address client_local;
    struct address peer_remote;
    struct slice peer; /* as text, for logs; may be empty */
    struct tunnel_log logs[TUNNEL_STATE_LOGS_MAX];
    unsigned log_count;
    uint64_t id;         /* of its exchange */
    int64_t started_us;  /* that, too */
    int64_t moved_ms;    /* when something was last received or sent */
    int64_t deadline_ms; /* DEADLINE_NEVER: none */
    uint32_t idle_timeout_ms;
    uint32_t half_closed_timeout_ms;
    uint64_t client_bytes;   /* sent on so far, from the client to the peer */
    uint64_t peer_bytes;     /* and back */
    uint32_t client_pending; /* received from the client and still to be sent on; these bytes come
                                first in the file that goes with the message */
    uint32_t peer_pending;   /* and back; these come behind them */
    bool client_shut;        /* the client's FIN was carried over */
    bool peer_shut;          /* the peer's was; never both */
};

/* Writes the message. Returns its length, or -EMSGSIZE if it is too long. */
int tunnel_state_write(const struct tunnel_state *state, char bytes[TUNNEL_STATE_MAX_BYTES]);

/* Reads a message, whose bytes the texts then point to. Returns 0, or -EPROTO and why as a phrase.
 */
int tunnel_state_parse(struct slice bytes, struct tunnel_state *state, const char **why);

#endif
