/* A client made of OpenSSL alone, for what clients of ours never do. */
#ifndef SUPPORT_TLS_PLAIN_H
#define SUPPORT_TLS_PLAIN_H

#include "tls_pair.h"

#include <openssl/ssl.h>

struct tls_plain {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *incoming;
    BIO *outgoing;
};

/* It verifies nothing; name may be NULL. */
void tls_plain_create(struct tls_plain *plain, const char *name);
void tls_plain_free(struct tls_plain *plain);

/* Begins a server's session for it and shakes hands as far as it gets; true: the client is done. */
bool tls_plain_shake(struct tls_plain *plain, struct tls_pair *pair);

/* The same in steps, of a session that has begun: one flight of each. True: the client is done. */
void tls_plain_begin(struct tls_plain *plain, struct tls_pair *pair);
bool tls_plain_step(struct tls_plain *plain, struct tls_pair *pair);

/* The type of its server's key: EVP_PKEY_EC, EVP_PKEY_RSA. */
int tls_plain_peer_kind(const struct tls_plain *plain);

#endif
