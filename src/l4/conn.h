/*
 * A connection of layer 4: one more protocol of the server. It is an exchange without a message,
 * whose chain ends with a stream to a peer; then the two are pumped (net/tunnel.h) and nothing
 * holds a stack any more.
 *
 *   accept, TLS ──▶ [coroutine: the chain] ──peer──▶ tunnel ──▶ end: log line, on_close
 *                          ├──none, failed──▶ FIN or RST ─────────▲
 *                          └──HTTP──▶ another protocol of the server
 *
 * A struct l4_conn lives in the arena of its exchange, which outlives the connection's stream.
 */
#ifndef L4_CONN_H
#define L4_CONN_H

#include "http/connection.h"
#include "http/exchange.h"
#include "net/tunnel.h"

#include <stdbool.h>
#include <stdint.h>

/* Why a connection has ended; l4_reason_name. */
enum l4_reason {
    L4_OPEN,           /* it has not */
    L4_ENDED,          /* both sides said FIN */
    L4_CLOSED,         /* a layer closed it, or no layer connected it to a peer */
    L4_RESET,          /* a layer reset it */
    L4_IDLE,           /* nothing was received for the idle time */
    L4_DEADLINE,       /* the total time was over */
    L4_SETUP_DEADLINE, /* the chain took longer than it may */
    L4_CLIENT_FAILED,
    L4_PEER_FAILED,
    L4_CONNECT_FAILED, /* no peer could be reached */
    L4_LAYER_FAILED,
    L4_CANCELLED, /* this server ends */
    L4_EVICTED,   /* a flow of datagrams that made room for another */
    L4_SERVED,    /* it was handed on to HTTP */
    L4_MOVED,     /* it goes on in another process, which tells of its end */
};

struct l4_conn;
struct l4_log_record;
struct tunnel_freeze;
struct tunnel_state;
struct udp_flow;

/* Hears of the end, once. */
struct l4_close_hook {
    /* On the main stack or in a coroutine, while the streams are still there; must not wait. True
     * if there is more to do, which `finish` does. */
    bool (*begin)(struct l4_conn *conn);
    /* The rest, in a coroutine; may suspend. The streams may be gone. Without `may_wait`, which is
     * when memory is exhausted, it is given up. */
    void (*finish)(struct l4_conn *conn, bool may_wait);
};

struct l4_conn {
    struct exchange *exchange;     /* whose arena it lives in */
    struct connection *connection; /* NULL once it is being closed */
    struct tunnel *tunnel;         /* under way, or NULL */
    struct udp_flow *flow;         /* of datagrams, in place of both; NULL once it has ended */
    bool of_datagrams;             /* it is or was a flow */
    struct l4_close_hook *on_close;
    struct coro *finisher; /* of on_close, or NULL */
    struct list link;      /* while it runs: in the list of those */
    struct address remote; /* of the client; kept beyond its stream */
    struct address local;

    /* What layers have decided on. */
    struct response *connected; /* the last response that carried a peer, or NULL */
    struct slice peer; /* address of the one that was connected to, as text; NULL ptr: none */
    uint32_t idle_timeout_ms;        /* of the tunnel; 0: none */
    uint32_t total_timeout_ms;       /* of the tunnel; 0: none but the listener's */
    struct http_server *next_server; /* that it is to be handed on to, or NULL */
    enum l4_reason verdict;          /* L4_CLOSED, L4_RESET or L4_OPEN */
    struct l4_log_record *logs;      /* lines of access logs that are owed for it */

    /* The end. */
    enum l4_reason reason;
    struct slice why;        /* what went wrong; NULL ptr: nothing did */
    uint64_t client_bytes;   /* from the client to the peer */
    uint64_t peer_bytes;     /* and back */
    uint64_t client_packets; /* the same in datagrams */
    uint64_t peer_packets;
    int64_t duration_us;
};

/* Starts layer 4 on a connection. */
void l4_connection_start(struct connection *connection);

/* Goes on with one that has begun in another process and is a tunnel already (net/tunnel.h),
 * frozen; texts are copied. NULL when memory is exhausted or an access log cannot be opened: both
 * streams are the caller's still. */
struct tunnel *l4_connection_adopt(struct connection *connection, struct stream *peer,
                                   const struct tunnel_state *state, struct tunnel_freeze *freeze);

/* Do functions of on_close still run, of connections that are gone? */
bool l4_finishing(void);

/* Cancels them, now and from now on: the worker ends. */
void l4_cancel_finishing(void);

/* Makes a listener one of layer 4. */
void l4_listener_config(struct listener_config *config);

/* The connection of layer 4 that a request stands for, or NULL for one of HTTP. */
struct l4_conn *l4_conn_of(const struct request *request);

/* Ends it by FIN (L4_CLOSED) or RST (L4_RESET): a tunnel at once, else when the chain has returned.
 */
void l4_conn_end(struct l4_conn *conn, enum l4_reason verdict);

/* Does the connection have a peer? `last` is what the last attempt has given, or NULL. */
bool l4_conn_connected(const struct l4_conn *conn, const struct response *last);

/* For flows of datagrams (udp_flow.c): makes the exchange that of a connection whose addresses are
 * set, and its end, when its reason and counts are. */
void l4_conn_begin(struct l4_conn *conn, struct exchange *exchange, struct service *service,
                   struct coro *coro);
void l4_conn_over(struct l4_conn *conn);

/* Notes which peer it was connected to. */
void l4_conn_note_peer(struct l4_conn *conn, const struct address *address);

/* Why a chain that gave this response, or NULL, gave no peer. */
enum l4_reason l4_conn_failure(const struct l4_conn *conn, const struct response *response);

/* "ended", "idle_timeout", ...: for logs and scripts. */
const char *l4_reason_name(enum l4_reason reason);

#endif
