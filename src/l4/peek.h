/*
 * What a client of layer 4 says first, waited for and looked at; nothing of it is consumed. To be
 * called in the coroutine of the connection's chain. All suspend.
 */
#ifndef L4_PEEK_H
#define L4_PEEK_H

#include "l4/detect.h"
#include "net/stream.h"
#include "tls/client_hello.h"

enum { L4_PEEK_MAX_BYTES = 16384 };

/* Waits until that many bytes (at most L4_PEEK_MAX_BYTES) are queued: 1; or the client has said its
 * last: 0; or a negative errno. */
int l4_peek(struct stream *stream, size_t count, int64_t deadline);

struct l4_hello {
    struct client_hello hello; /* lies in the message */
    uint8_t message[CLIENT_HELLO_MAX_BYTES];
    size_t message_len;
};

/* Reads a hello. Returns what it is (enum client_hello_verdict), or a negative errno: -EPIPE when
 * the client has said its last before it was complete. */
int l4_read_hello(struct stream *stream, struct l4_hello *hello, int64_t deadline);

/* What the client speaks (enum l4_protocol): L4_PROTOCOL_UNDECIDED if it had said too little by the
 * deadline, or when it said its last; or a negative errno. */
int l4_await_protocol(struct stream *stream, int64_t deadline);

#endif
