/*
 * An HTTP/2 session of nghttp2 over a stream, for either side. Receiving needs no coroutine: the
 * stream's arrivals are fed to the session from the loop. Sending has one while there is something
 * to send: it gathers the frames of all who wrote in a turn into one buffer and sends that.
 *
 *   stream ──arrival──▶ h2_transport_receive ──▶ session ──callbacks──▶ owner
 *   owner ──nghttp2_submit_*, h2_transport_flush──▶ session ──▶ writer ──▶ stream_send
 *
 * Flow control: the connection's window is given back on receipt, a stream's when its bytes are
 * consumed (h2_input.h). So one slow stream holds no other up, and memory is bounded by the
 * streams' windows. The owner's on_data_chunk_recv calls h2_transport_received for every chunk.
 *
 * Ending: `ended` is called once, from a timer, with no code of the session on any stack. The owner
 * then ends its streams' coroutines and, when the last has returned, calls h2_transport_close.
 */
#ifndef HTTP_H2_TRANSPORT_H
#define HTTP_H2_TRANSPORT_H

#include "http/h2_scan.h"
#include "io/timer.h"
#include "net/stream.h"

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    H2_STREAM_WINDOW_BYTES = 65535, /* RFC 9113 section 6.9.2 */
    H2_CONNECTION_WINDOW_BYTES = 1048576,
    H2_PROVOKED_FRAMES_MAX = 1000, /* queued for a peer that does not read them: a flood */
};

struct h2_transport;

struct h2_transport_ops {
    /* Nothing more is received or sent. `error` is 0 when both sides had said all, -ECONNRESET when
     * the peer closed or reset, -EPROTO when it broke the protocol beyond an answer, -ETIMEDOUT
     * when it took nothing. */
    void (*ended)(struct h2_transport *transport, int error);
    /* The peer has closed its direction and may still read; NULL: that is an end, -ECONNRESET.
     * Called once, from h2_transport_receive. The session ends when nothing is active on it any
     * more. */
    void (*half_closed)(struct h2_transport *transport);
    /* A frame has begun; the session has been fed all before it, and hears of it next. May be NULL.
     */
    void (*frame_begun)(struct h2_transport *transport, const struct h2_frame_head *head);
    /* The session has noticed a flood; the connection is terminated with ENHANCE_YOUR_CALM. May be
     * NULL. */
    void (*flooded)(struct h2_transport *transport);
};

struct h2_transport {
    struct stream *stream;    /* borrowed; closed by h2_transport_close */
    nghttp2_session *session; /* owned; NULL once closed */
    const struct h2_transport_ops *ops;
    void *owner;         /* for the ops */
    struct coro *writer; /* while there is output */
    char *out;           /* what the writer gathers; NULL while it is idle */
    uint32_t out_len;
    const uint8_t *rest; /* of a frame that did not fit: the session's memory */
    size_t rest_len;
    struct h2_scan scan; /* of what is received */
    uint64_t data_bytes; /* of bodies, sent so far */
    size_t provoked;     /* frames in the session's queue that were put there when it was fed */
    struct timer end;    /* fires once to call ops->ended */
    int error;           /* for ops->ended */
    bool deaf;    /* what arrives is dropped: it was terminated, or the peer has half-closed */
    bool ending;  /* the timer is started or has fired: nothing is fed or gathered any more */
    bool closing; /* h2_transport_close was called */
    bool reset;   /* and asked for a TCP reset */
};

struct h2_transport_options {
    bool server;
    uint32_t streams_max;           /* SETTINGS_MAX_CONCURRENT_STREAMS, of a server */
    uint32_t window_bytes;          /* of each stream, for what it receives; 0: 65,535 */
    uint32_t header_list_max_bytes; /* SETTINGS_MAX_HEADER_LIST_SIZE; advice to the peer */
    const struct h2_transport_ops *ops;
    void *owner; /* for the ops, and the session's user_data in all callbacks */
    /* Made by h2_transport_callbacks once a process; the session copies it. */
    const nghttp2_session_callbacks *callbacks;
};

/* Callbacks with those that the transport itself needs; the owner sets the others, but not
 * send_data. NULL when memory is exhausted. */
nghttp2_session_callbacks *h2_transport_callbacks(void);

/* Makes the session and queues its SETTINGS (and a client's preface); the next flush sends them.
 * Bytes that the stream has queued already are fed by the next h2_transport_receive. Returns 0 or
 * -ENOMEM. */
int h2_transport_init(struct h2_transport *transport, struct stream *stream,
                      const struct h2_transport_options *options);

/* Feeds what the stream has queued and notices its end; for the stream's on_arrival. Flushes. */
void h2_transport_receive(struct h2_transport *transport);

/* Gives the connection's window of a received chunk back. */
void h2_transport_received(struct h2_transport *transport, size_t len);

/* Has what is queued sent soon. Cheap when nothing is. Never suspends, never calls back. */
void h2_transport_flush(struct h2_transport *transport);

/* Hears nothing more from the peer, sends GOAWAY with this code behind what is queued, then ends.
 * For the session's callbacks too. */
void h2_transport_terminate(struct h2_transport *transport, uint32_t code);

/* Ends without a word, with this error, from the loop. */
void h2_transport_end(struct h2_transport *transport, int error);

/* Deletes the session and closes the stream as soon as the writer has ended; the stream's on_closed
 * tells when. No coroutine may refer to the session any more. */
void h2_transport_close(struct h2_transport *transport, bool reset);

#endif
