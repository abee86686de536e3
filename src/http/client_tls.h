/* TLS on a connection to an origin. Suspends. */
#ifndef HTTP_CLIENT_TLS_H
#define HTTP_CLIENT_TLS_H

#include "net/stream.h"
#include "tls/tls.h"

struct client_tls {
    struct tls_client *client; /* NULL: in the clear */
    const char *name;          /* that the origin must prove */
    struct tls_memory *memory; /* of its sessions */
};

/* Handshakes on a connected stream, which it starts; does just that in the clear. Returns 0 or a
 * negative errno: -EPROTO when the origin cannot be trusted or does not speak TLS, with the reason
 * in the log. */
int client_tls_begin(struct stream *stream, const struct client_tls *tls, int64_t deadline);

/* As client_tls_begin, behind a header of the PROXY protocol, unless its len is 0. */
int client_tls_begin_behind(struct stream *stream, struct slice header,
                            const struct client_tls *tls, int64_t deadline);

/* Was this protocol agreed on by ALPN? */
bool client_tls_agreed(const struct stream *stream, const char *protocol);

#endif
