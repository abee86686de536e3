/*
 * What the files of the OpenSSL backend share. Each callback finds its session through the BIO of
 * its SSL, so that no other way from one to the other needs memory.
 */
#ifndef TLS_OPENSSL_INTERNAL_H
#define TLS_OPENSSL_INTERNAL_H

#include "tls/backend.h"

#include <openssl/ssl.h>
#include <time.h>

struct openssl_certificate {
    X509 *leaf;
    STACK_OF(X509) * intermediates;
    EVP_PKEY *key;
    unsigned char *ocsp; /* NULL: none */
    size_t ocsp_len;
    time_t ocsp_end; /* a response says until when it holds; 0: always */
};

struct openssl_ticket_key {
    uint64_t period; /* of time, for which it was derived; 0: none yet */
    uint8_t name[16];
    uint8_t cipher[32];
    uint8_t mac[32];
};

struct openssl_context {
    SSL_CTX *ctx;
    uint8_t ticket_secret[TLS_TICKET_SECRET_BYTES];
    struct openssl_ticket_key ticket_keys[2]; /* the present period's and the one's before it */
};

struct openssl_session {
    SSL *ssl;
    char *name; /* SNI that was received or sent, in lower case; NULL until then */
    struct tls_certificate *chosen[TLS_KEY_KINDS]; /* of the server; borrowed, NULL once open */
};

struct tls_session *openssl_session_of(const SSL *ssl);

/* The backend's functions, as in backend.h. */
int openssl_certificate_load(struct tls_certificate *certificate,
                             const struct tls_certificate_config *config, char **error);
void openssl_certificate_free(void *loaded);
int openssl_server_create(struct tls_server *server, char **error);
int openssl_client_create(struct tls_client *client, char **error);
void openssl_context_destroy(void *context);
void openssl_describe(const struct tls_session *session, struct tls_info *info);
int openssl_describe_peer(const struct tls_session *session, struct tls_peer *peer);

/* Makes a server's context answer hellos (SNI, ALPN, certificates, OCSP), and resume by tickets. */
void openssl_hello_install(SSL_CTX *ctx, const struct tls_server_config *config);
void openssl_tickets_install(struct openssl_context *context, const uint8_t *secret);

/* Reads all certificates of a PEM text. NULL with *error if there is none or one is damaged; `what`
 * names the text: "the chain". */
STACK_OF(X509) * openssl_read_certificates(struct slice pem, const char *what, char **error);

/* Why the library failed last: the reason of the newest or oldest error in its queue, which is
 * emptied. */
const char *openssl_reason(void);

#endif
