/* One exchange on a connection to an HTTP/2 origin; shared by h2_client.c (the connection's life),
 * h2_client_stream.c (the exchange) and h2_client_receive.c (the session's callbacks). */
#ifndef HTTP_H2_CLIENT_STREAM_H
#define HTTP_H2_CLIENT_STREAM_H

#include "http/h2_client.h"
#include "http/h2_input.h"
#include "http/h2_output.h"

enum { H2_CLIENT_HEADS_MAX = 32 }; /* interim ones that wait to be read */

/* A response head that was received; in the arena of the request. */
struct h2_client_head {
    struct h2_client_head *next;
    struct headers headers;
    int64_t length; /* Content-Length, or -1 */
    uint16_t status;
    bool complete;
};

/* Held by the session until it closes the stream, and by the exchange until its user lets go; the
 * last of them frees it. */
struct h2_client_stream {
    struct client_exchange exchange;
    struct h2_client *client;
    struct list link; /* in client->streams */
    int32_t id;       /* 0: no request was sent yet */
    bool open;        /* the session knows it */
    bool held;        /* the exchange is not over */
    bool reset_by_origin;
    bool refused;                 /* the origin has not looked at the request */
    bool head_seen;               /* the final head is complete: what fields come are trailers */
    struct h2_client_head *heads; /* not yet read, oldest first */
    struct h2_client_head *last;
    int64_t body_length;       /* Content-Length of the one that was read last, or -1 */
    struct response *response; /* its body's owner, since begin_body */
    unsigned head_count;       /* all that began */
    uint32_t field_bytes;      /* of the present section, as HPACK counts */
    uint32_t field_count;
    struct headers trailers;
    const char *why;            /* what is malformed (static text), or NULL */
    uint64_t bytes_in_at_start; /* of the connection, when the request was sent */
    int64_t sent_ms;            /* and when that was */
    struct coro *reader;        /* waits for a head, or NULL */
    bool has_body;              /* the request: DATA or what a tunnel sends */
    bool connect;               /* an extended CONNECT: its end is not that of a message */
    struct h2_input input;
    struct h2_output output;
};

extern const struct client_exchange_ops h2_client_ops;

/* The session has closed it, with an error code of HTTP/2. */
void h2_client_stream_closed(struct h2_client_stream *stream, uint32_t code);

/* The session is over; `error` is what reading gives, -EPROTO with client->why. */
void h2_client_stream_lost(struct h2_client_stream *stream, int error);

/* The connection may be dead: asks the origin for a sign of life. */
void h2_client_doubt(struct h2_client *client);

/* How many streams at once the origin allows. */
uint32_t h2_client_allowed(const struct h2_client *client);

/* Wakes whoever waits for the connection to begin. */
void h2_client_wake_opener(struct h2_client *client);

/* Wakes whoever waits for a head. */
void h2_client_stream_wake(struct h2_client_stream *stream);

/* --- h2_client_connect.c ---------------------------------------------------------------------- */

/* What an upgrade becomes: the protocol of an extended CONNECT, if the origin takes these (else its
 * ptr is NULL: an ordinary request, as an origin of HTTP/1 may take an Upgrade). */
struct slice h2_client_connect_protocol(const struct h2_client_stream *stream,
                                        const struct client_head *head);

/* Makes the 101 that HTTP/1 has for it of the origin's consent. Returns 0 or -ENOMEM. */
int h2_client_accept_connect(struct h2_client_stream *stream, struct response *response);

/* The detach of client_exchange_ops: a byte stream that leads to the origin; NULL when memory or
 * descriptors are exhausted. Ends the exchange by itself. */
struct stream *h2_client_detach(struct client_exchange *exchange);

/* The callbacks of the session, made once; NULL when memory is exhausted. */
const nghttp2_session_callbacks *h2_client_callbacks(void);

#endif
