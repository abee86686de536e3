/*
 * TLS on a stream: the handshake in a coroutine, then a filter that decrypts what arrives and
 * encrypts what is sent. Who reads and writes the stream does not see the difference.
 *
 *   tls_stream_accept / tls_stream_connect ──0──▶ the stream carries the application's bytes
 *                                          └─< 0──▶ the caller closes the stream
 */
#ifndef TLS_TLS_STREAM_H
#define TLS_TLS_STREAM_H

#include "net/stream.h"
#include "tls/tls.h"

/* Asked when a client's hello has come, if the server's config wants it: may suspend. Answers 0
 * with a certificate (retained for the caller; NULL: the configured one), or -EACCES to refuse the
 * name. */
struct tls_hello_hook {
    int (*answer)(struct tls_hello_hook *hook, const struct tls_hello *hello,
                  struct tls_certificate **certificate, int64_t deadline);
};

/* Handshakes on a started stream. Both suspend. Return 0, or a negative errno: -EPROTO (why is in
 * `error`, TLS_ERROR_MAX_BYTES), -ETIMEDOUT, -ECONNRESET, -ECANCELED, -ENOMEM. */
int tls_stream_accept(struct stream *stream, struct tls_server *server, struct tls_hello_hook *hook,
                      char *error, int64_t deadline);
int tls_stream_connect(struct stream *stream, struct tls_client *client, const char *name,
                       struct tls_memory *memory, char *error, int64_t deadline);

/* Sends what the handshake has left to say, which otherwise goes along with the first bytes that
 * are written: for a client that may have none, as the server speaks first. Nothing if there is no
 * TLS. */
void tls_stream_flush(struct stream *stream);

/* The session of a stream, for tls_describe; NULL if it is in the clear. */
const struct tls_session *tls_stream_session(const struct stream *stream);

#endif
