/*
 * A connection to a Thrift origin: calls of many exchanges, matched with their replies by sequence
 * ids of ours. Knows nothing of peers or pools: src/proxy/peer_thrift.c keeps, shares and counts
 * these.
 *
 *   open ──▶ taking calls ──(silence, orphaned: draining)──▶ last call ──▶ closed
 *                  └──(reset, malformed, reply to nobody: ended)──▶ last call ──▶ closed
 *
 * Small calls are gathered and sent together; one whose arguments are streamed has the connection's
 * sending side to itself. Replies are kept whole up to a bound, so that a slow reader holds up
 * nobody; longer ones are read from the connection.
 */
#ifndef THRIFT_CLIENT_H
#define THRIFT_CLIENT_H

#include "http/client_exchange.h"
#include "http/client_tls.h"
#include "thrift/exchange.h"
#include "thrift/input.h"

struct thrift_client_call;

/* Bytes on their way, in two buffers: one is being sent while the other is filled. */
struct thrift_output {
    struct stream_write write;
    struct iovec iov;
    char *filling; /* owned, as is the next */
    char *sending;
    size_t filling_bytes;
    size_t filling_capacity;
    size_t sending_capacity;
    bool busy;             /* a write is under way */
    uint64_t queued_bytes; /* all that was ever put in */
    uint64_t handed_bytes; /* to a write: the origin may have seen them */
    uint64_t sent_bytes;
};

struct thrift_client {
    struct stream stream;
    struct thrift_input input;
    struct thrift_output output;
    struct list calls;   /* thrift_client_call.link: held, or their replies are still to come */
    uint32_t call_count; /* of them */
    uint32_t held_count; /* of those that are held by an exchange */
    uint32_t calls_max;  /* at a time */
    int32_t last_seqid;
    struct thrift_client_call *receiving; /* whose reply is coming in, or NULL */
    struct thrift_client_call *uploading; /* whose arguments are being streamed, or NULL */
    const char *why;      /* what the origin has done wrong (static text), or NULL */
    bool answered;        /* a call was: the connection is good */
    bool draining;        /* takes no more calls */
    bool reset;           /* the close: something was under way */
    bool ended;           /* closed when the last exchange lets go */
    struct timer closing; /* the close: never inside a callback of the stream */
    struct list link;     /* for the owner's pool */
    struct timer idle;    /* for the owner's pool */
    void *owner;          /* the pool */
    void (*on_idle)(struct thrift_client *client);   /* no exchange holds a call any more */
    void (*on_closed)(struct thrift_client *client); /* before its memory is freed */
};

struct thrift_client_options {
    uint32_t calls_max;
    uint32_t frame_max_bytes; /* of a reply */
    uint32_t head_max_bytes;
    uint32_t send_stall_ms; /* an origin whose TCP takes nothing for so long is given up */
};

/* Connects, by TLS if there is a context. Returns 0 or a negative errno. Suspends. */
int thrift_client_open(struct thrift_client **out, struct io *io, const struct address *address,
                       const struct client_tls *tls, const struct thrift_client_options *options,
                       int64_t deadline);

/* May an exchange begin on it now? */
bool thrift_client_has_room(const struct thrift_client *client);

/* Begins an exchange. NULL when memory is exhausted. */
struct client_exchange *thrift_client_begin(struct thrift_client *client);

/* The connection of an exchange that it began. */
struct thrift_client *thrift_client_of(const struct client_exchange *exchange);

/* Ends an exchange, `complete` if its call was sent to its end. A reply that comes later is
 * dropped. */
void thrift_client_end_exchange(struct client_exchange *exchange, bool complete);

/* Closes one that no exchange holds; by a reset no port is left behind that waits for its end. */
void thrift_client_close(struct thrift_client *client, bool reset);

extern const struct client_exchange_ops thrift_client_ops;

/* --- Shared by client.c (the connection's life) and client_call.c (the exchange) -------------- */

struct thrift_client_call {
    struct client_exchange exchange;
    struct thrift_client *client;
    struct list link;
    int32_t seqid;
    bool held;    /* the exchange is not over */
    bool awaited; /* a reply is to come */
    bool oneway;
    bool streamed;     /* the reply is read from the connection */
    bool complete;     /* all of the reply was received */
    uint64_t begin_at; /* of output.queued_bytes */
    uint64_t end_at;
    uint64_t bytes_in_at_start;   /* of the connection, when the call was sent */
    struct thrift_message *reply; /* its head has come; in the arena of the request */
    struct headers fields;
    char *args; /* of the reply, in the arena of the request */
    uint32_t args_len;
    int error;           /* negative errno that ended it, or 0 */
    struct coro *reader; /* waits for the reply, or a oneway call's sending; or NULL */
    struct coro *sender; /* waits to send arguments, or NULL */
};

/* Ends the connection: every call that is not answered fails with `error`, and those of which
 * nothing was sent with -ECONNREFUSED. It is closed when the last exchange lets go, a turn later.
 */
void thrift_client_end(struct thrift_client *client, int error, const char *why);

/* Puts bytes into the output. Returns 0 or -ENOMEM. */
int thrift_client_queue(struct thrift_client *client, struct slice bytes);

/* Begins to send what is there. */
void thrift_client_flush(struct thrift_client *client);

/* Takes what has come, as far as nobody else is to read it. */
void thrift_client_receive(struct thrift_client *client);

/* A call is over for exchange and connection. */
void thrift_client_forget(struct thrift_client_call *call);

#endif
