/*
 * A client's HTTP/2 connection and its streams: shared by h2_server.c (the connection's life),
 * h2_callbacks.c (the session's), h2_stream.c (a stream's life), h2_request.c (what the client's
 * fields mean) and h2_response.c (answering).
 *
 *   HEADERS ──▶ h2_stream_create ──fields──▶ h2_request_complete ──▶ coroutine: chain, response
 *                                                                         │
 *   session closes the stream ◀──▶ coroutine ends: whichever is last frees the stream
 */
#ifndef HTTP_H2_CONNECTION_H
#define HTTP_H2_CONNECTION_H

#include "http/connection.h"
#include "http/h2_closed.h"
#include "http/h2_guard.h"
#include "http/h2_input.h"
#include "http/h2_output.h"
#include "http/h2_transport.h"

/* What a connection's idle timer runs for. */
enum h2_waiting { H2_WAITING_NOTHING, H2_WAITING_REQUEST, H2_WAITING_HEAD };

struct h2_connection {
    struct connection *base; /* whose state it is */
    struct h2_transport transport;
    struct list streams; /* h2_stream.link: open, or with a coroutine */
    uint32_t stream_count;
    uint32_t requests;      /* complete heads so far */
    int32_t last_stream_id; /* highest that the client has opened */
    struct timer settings;  /* until the client has acknowledged ours */
    struct timer drain;     /* until the final GOAWAY */
    bool head_open;         /* a header block has begun and not ended */
    bool last_named;        /* a GOAWAY is queued, or more, that tells which request is the last */
    bool lingering;         /* said all; what still arrives is dropped */
    bool ended;             /* the transport has: nothing new begins */
    enum h2_waiting waiting;
    struct h2_guard guard;
    struct h2_closed closed;
};

struct h2_stream {
    struct h2_connection *connection;
    struct list link; /* in connection->streams */
    int32_t id;
    bool open;          /* the session knows it still */
    bool head_complete; /* what fields still come are trailers */
    bool bad_trailers;  /* they were too many */
    bool reset_by_peer;
    bool answered;        /* the final response was begun */
    bool finished;        /* END_STREAM was sent */
    struct timer linger;  /* since then: for the rest of the request, which is dropped */
    uint64_t finished_at; /* bytes of the request that had come by then */
    uint16_t refusal;     /* status to answer with instead of the chain's; 0: none */
    const char *why;      /* of the refusal, static text */
    uint32_t head_bytes;  /* decoded, as SETTINGS_MAX_HEADER_LIST_SIZE counts */
    uint32_t field_count; /* of the head, or of the trailers */
    struct slice scheme;  /* pseudo-header fields, in the arena; NULL ptr: absent */
    struct slice path;
    struct slice authority;
    struct slice protocol;     /* of an extended CONNECT (RFC 8441) */
    bool wants_tunnel;         /* CONNECT: what follows the head is a tunnel's, not a body */
    bool tunnel;               /* it has one */
    struct exchange *exchange; /* owned */
    struct coro *coro;         /* the exchange's, or NULL */
    struct h2_input input;     /* the request's body */
    struct h2_output output;   /* the response's body */
};

/* --- h2_stream.c ------------------------------------------------------------------------------ */

/* A stream whose head has begun to arrive. NULL when memory is exhausted. */
struct h2_stream *h2_stream_create(struct h2_connection *connection, int32_t id);

/* Starts the coroutine that answers. Returns 0 or -ENOMEM. */
int h2_stream_start(struct h2_stream *stream);

/* The session has closed it: cancels what still answers. Frees it, if nothing does. */
void h2_stream_closed(struct h2_stream *stream, uint32_t code);

/* Ends it without the session, which is over. */
void h2_stream_cancel(struct h2_stream *stream);

/* The response is complete, the request is not: its rest is dropped for a while, then the stream is
 * reset. */
void h2_stream_linger(struct h2_stream *stream);

/* More of the request has come meanwhile. */
void h2_stream_still_receives(struct h2_stream *stream);

/* Queues RST_STREAM; harmless on one that the session has closed. */
void h2_stream_reset(struct h2_stream *stream, uint32_t code);

/* --- h2_request.c ----------------------------------------------------------------------------- */

/* Takes one decoded field of the head or the trailers. Returns 0, -ENOMEM, or -EMSGSIZE when there
 * are so many that not even a refusal is worth their decoding. */
int h2_request_add_field(struct h2_stream *stream, struct slice name, struct slice value);

/* Judges a complete head. Returns 0 (perhaps with stream->refusal set) or -EPROTO: RFC 9113 calls
 * it malformed, which is a stream error. */
int h2_request_complete(struct h2_stream *stream, bool end_stream);

/* --- h2_response.c ---------------------------------------------------------------------------- */

/* Sends the response. Returns 0 or a negative errno; the stream is to be reset then. Suspends. */
int h2_send_response(struct h2_stream *stream, struct response *response);

/* Answers a request that was refused. Suspends. */
int h2_send_refusal(struct h2_stream *stream);

/* Sends an interim response (1xx). */
int h2_send_interim(struct exchange *exchange, uint16_t status, const struct headers *headers);

/* --- h2_server.c ------------------------------------------------------------------------------ */

/* Starts or stops the idle timer as the connection's state asks for. */
void h2_connection_update_timer(struct h2_connection *connection);

/* Tells the client that no later request is answered here; those that began go on. */
void h2_connection_last_request(struct h2_connection *connection);

/* A stream has ended: the connection may be idle, or over. May free the connection. */
void h2_connection_stream_ended(struct h2_connection *connection);

#endif
