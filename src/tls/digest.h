/* Digests and encodings that protocols ask for, by OpenSSL's libcrypto. Pure. */
#ifndef TLS_DIGEST_H
#define TLS_DIGEST_H

#include "base/slice.h"

#include <stdint.h>

enum { DIGEST_SHA256_BYTES = 32, DIGEST_MD5_BYTES = 16, WEBSOCKET_ACCEPT_BYTES = 28 };

/* What an origin answers to a Sec-WebSocket-Key (RFC 6455, 4.2.2), without a NUL. Returns 0 or
 * -ENOMEM. */
int digest_websocket_accept(struct slice key, char accept[WEBSOCKET_ACCEPT_BYTES]);

/* All return 0 or -ENOMEM. MD5 is for names that others have chosen, never for secrets. */
int digest_md5(struct slice text, uint8_t digest[DIGEST_MD5_BYTES]);
int digest_sha256(struct slice text, uint8_t digest[DIGEST_SHA256_BYTES]);
int digest_hmac_sha256(struct slice key, struct slice text, uint8_t digest[DIGEST_SHA256_BYTES]);

#endif
