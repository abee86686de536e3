/*
 * A client's connection: what is the same for every protocol. Owned by its server's list; freed
 * when its stream has closed.
 *
 *   accept ──▶ connection ──first bytes: which protocol?──▶ protocol->arrival ... ──▶ closed
 */
#ifndef HTTP_CONNECTION_H
#define HTTP_CONNECTION_H

#include "http/server.h"
#include "net/stream.h"

struct connection;
struct proxy_info;
struct tunnel;
struct tunnel_freeze;
struct tunnel_note;
struct tunnel_state;

/* What a protocol does with a connection. Nothing here suspends. */
struct protocol {
    /* Something arrived while no coroutine reads the stream, or it has ended. */
    void (*arrival)(struct connection *connection);
    /* The server drains: ends what is idle soon and lets the rest finish. */
    void (*drain)(struct connection *connection);
    /* Ends everything now; the connection closes in this or a later turn. */
    void (*abort)(struct connection *connection);
    /* The stream is gone: frees what the protocol holds. The connection itself is freed after. */
    void (*closed)(struct connection *connection);
    /* The tunnel that the connection has become, if another process may go on with that, and what
     * there is to know beside the tunnel; or NULL. May be NULL itself: there never is one. */
    struct tunnel *(*moves)(struct connection *connection, struct tunnel_state *state);
};

struct connection {
    struct stream stream;         /* owner: the connection */
    struct http_server *server;   /* whose service and options it has */
    struct http_server *listener; /* that accepted and counts it; differs if it was handed on */
    struct list link;             /* in listener->connections */
    const struct protocol *protocol;
    struct coro *coro;          /* that sets it up or serves it, or NULL */
    struct timer idle;          /* armed while there is nothing to serve */
    struct list idle_link;      /* among the worker's idle ones, or alone; idle.h */
    int64_t idle_since_ms;      /* while it is among them */
    uint64_t source;            /* of limits_source, where it is counted; 0: nowhere */
    void *state;                /* of the protocol, where it has some beyond this; or NULL */
    bool starting;              /* http_server_accept is at work: it frees what closes meanwhile */
    bool stays;                 /* its tunnel is not offered to another process any more */
    struct proxy_info *proxied; /* what a proxy in front has said of the client; owned; or NULL */
};

/* server.c: where the client has come to. Returns 0 or -ENOMEM. */
int connection_set_local(struct connection *connection, const struct address *local);

/* server.c: the connection is a tunnel's from now on, or carries one: has TCP find out if the
 * client vanishes. What comes before has timeouts of its own. */
void connection_watch_client(struct connection *connection);

/* server.c: starts what the listener is for, behind what has to come before it. Bytes may be queued
 * already; the connection may be closed when this returns, unless the stream has yet to start. */
void connection_start_protocol(struct connection *connection);

/* proxied_connection.c: do connections from there begin with a header of the PROXY protocol? */
bool proxied_connection_expected(const struct http_server *server, const struct address *sender);

/* Waits for that header, takes its word for who the client is, and if that one is let in, starts
 * the protocol. */
void proxied_connection_start(struct connection *connection);

/* h1_server.c: the memory of a connection (zeroed; NULL when there is none), and the start of the
 * protocol on it: bytes may be queued already. */
struct connection *h1_connection_create(void);
void h1_connection_start(struct connection *base);

/* As this, for a connection from another process that is a tunnel already (net/tunnel.h), frozen;
 * its texts are copied. NULL when memory is exhausted: streams and notes are the caller's still. */
struct tunnel *h1_connection_adopt(struct connection *base, struct stream *peer,
                                   const struct tunnel_state *state, struct tunnel_freeze *freeze,
                                   struct tunnel_note *notes);

/* tls_connection.c: as h1_connection_start, for a listener with TLS: handshakes, then starts the
 * protocol that was agreed on. */
void tls_connection_start(struct connection *connection);

/* h2_server.c: the start of HTTP/2 on it, from the preface on; bytes may be queued already. */
void h2_connection_start(struct connection *base);

/* h2_preface.c: waits for the first bytes, then starts HTTP/2 if they are its preface, else HTTP/1.
 */
void h2_preface_start(struct connection *connection);

/* Hands a connection whose protocol has done its part on to another server's: it begins anew, with
 * all that is queued. That server has no connections of its own, only a service, which is held for
 * as long as the connection is open. To be called on the main stack; the connection may be gone
 * behind it. */
void connection_hand_on(struct connection *connection, struct http_server *to);

/* Begins an exchange of a connection: its coroutine, addresses, service and deadline. The codec
 * sets the rest. Call it when the request is complete enough to be handled. */
void connection_begin_exchange(struct connection *connection, struct exchange *exchange,
                               const struct exchange_codec *codec, struct coro *coro);

/* Has the chain answer. NULL if the exchange is cancelled or memory is exhausted; the response's
 * body is the caller's to release. Suspends. */
struct response *connection_answer(struct exchange *exchange);

/* Counts a request that no layer will see, since its head broke a rule or a limit, and logs now and
 * then who sent it and what was wrong with it. */
void connection_count_refusal(const struct connection *connection, const char *why);

/* Tells the service of it when it has been answered with this status. */
void connection_note_refusal(const struct connection *connection, struct exchange *exchange,
                             uint16_t status, const char *why);

enum {
    CONNECTION_DRAIN_IDLE_MS = 1000, /* how long a draining server waits for a request in flight */
};

#endif
