/*
 * The server side of Thrift: a connection, and its calls, each of which is an exchange with a
 * coroutine of its own. server.c has the connection's life, call.c a call's, reply.c what answers
 * it.
 *
 *   frame ──▶ call ──arguments there, or too many to keep──▶ coroutine: chain ──▶ its turn ──▶
 * reply
 *
 * Replies go in the order of their calls, since clients of the framed transport expect that of a
 * connection, unless the listener or the call's header says that any order will do.
 */
#ifndef THRIFT_SERVER_H
#define THRIFT_SERVER_H

#include "http/connection.h"
#include "thrift/exchange.h"
#include "thrift/input.h"

struct thrift_call;

/* What a connection's idle timer runs for. */
enum thrift_waiting {
    THRIFT_WAITING_NOTHING,
    THRIFT_WAITING_CALL,
    THRIFT_WAITING_HEAD,
    THRIFT_WAITING_ARGUMENTS,
};

struct thrift_connection {
    struct connection *base; /* whose state it is */
    struct thrift_input input;
    struct list calls; /* thrift_call.link, oldest first */
    uint32_t call_count;
    uint32_t requests;            /* so far */
    struct thrift_call *incoming; /* whose arguments are being received, or NULL */
    struct thrift_call *sending;  /* whose reply is being sent, or NULL */
    struct timer drain;           /* until no further call is taken */
    enum thrift_waiting waiting;
    bool last;      /* no further call is taken */
    bool lost;      /* the client is gone, or all is given up */
    bool lingering; /* said all; what still arrives is dropped */
};

struct thrift_call {
    struct thrift_connection *connection;
    struct list link;
    struct exchange *exchange; /* owned */
    struct coro *coro;         /* runs while there is one */
    const char *refusal;       /* what is wrong with it (static text), or NULL */
    char *args;                /* its arguments, as far as they have come; in the arena */
    uint32_t args_len;
    bool streamed; /* they are read from the connection instead */
    bool oneway;
    bool waiting; /* for its turn to reply */
};

/* For listener_config.start. */
void thrift_connection_start(struct connection *base);

/* --- server.c --------------------------------------------------------------------------------- */

/* A call is over, its memory still there: the connection goes on, or ends with `failed`, when the
 * client cannot be given what it waits for. */
void thrift_connection_call_ended(struct thrift_connection *connection, bool failed);

/* --- call.c ----------------------------------------------------------------------------------- */

/* A call of which the head has come. `refusal` (static text, or NULL) is what answers it. NULL when
 * memory is exhausted. */
struct thrift_call *thrift_call_create(struct thrift_connection *connection, const char *refusal);

/* Takes arguments that have come. Returns 1 when it has begun to run, 0 when there is nothing to do
 * now, or -ENOMEM. */
int thrift_call_receive(struct thrift_call *call);

/* The client is gone. Frees it at once if it does not run. */
void thrift_call_cancel(struct thrift_call *call);

/* --- reply.c ---------------------------------------------------------------------------------- */

/* Sends what the chain has answered. Returns 0 or a negative errno. Suspends. */
int thrift_send_reply(struct thrift_call *call, struct response *response);

/* Wakes the call whose turn it is to reply. */
void thrift_wake_next(struct thrift_connection *connection);

#endif
