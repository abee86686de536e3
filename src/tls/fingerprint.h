/*
 * Fingerprints of TLS clients: what a hello offers, in a form that is the same for all hellos of a
 * program and differs between most programs. Values that stand for none (GREASE) do not count.
 * Pure.
 *
 *   JA3   version,ciphers,extensions,groups,point formats: decimal numbers, "-" between them;
 *         known by the MD5 of that text
 *   JA4   t13d1516h2_8daaf6152771_e5627efa2ab1: what is offered in short, a digest of the sorted
 *         ciphers, a digest of the sorted extensions and the signature algorithms
 */
#ifndef TLS_FINGERPRINT_H
#define TLS_FINGERPRINT_H

#include "tls/client_hello.h"

enum {
    /* At most 5 digits and a dash for each 2 bytes of the message. */
    FINGERPRINT_JA3_MAX_BYTES = CLIENT_HELLO_MAX_BYTES * 3 + 16,
    FINGERPRINT_JA3_HASH_BYTES = 33, /* with its NUL, as the next */
    FINGERPRINT_JA4_BYTES = 37,
};

/* Writes JA3's text (FINGERPRINT_JA3_MAX_BYTES) without a NUL; returns its length. */
size_t fingerprint_ja3(const struct client_hello *hello, char *bytes);

/* Both return 0, or -ENOMEM where the digest cannot be made. */
int fingerprint_ja3_hash(struct slice ja3, char hash[FINGERPRINT_JA3_HASH_BYTES]);
int fingerprint_ja4(const struct client_hello *hello, char ja4[FINGERPRINT_JA4_BYTES]);

#endif
