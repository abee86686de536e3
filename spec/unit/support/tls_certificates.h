/* Certificates for tests, made in memory: two authorities and what they have signed. */
#ifndef SUPPORT_TLS_CERTIFICATES_H
#define SUPPORT_TLS_CERTIFICATES_H

#include "base/slice.h"

#include <openssl/x509.h>

enum test_certificate_id {
    CERT_CA,
    CERT_OTHER_CA,
    CERT_INTERMEDIATE, /* of CERT_CA */
    CERT_ONE_ECDSA,    /* one.example, *.wild.example, 127.0.0.1, ::1 */
    CERT_ONE_RSA,      /* the same names */
    CERT_TWO_ECDSA,    /* two.example, exact.wild.example; by the intermediate */
    CERT_COMMON_NAME,  /* common.example as common name, no others */
    CERT_EXPIRED,      /* one.example, until yesterday */
    CERT_EARLY,        /* one.example, from tomorrow */
    CERT_FOREIGN,      /* one.example, by the other authority */
    CERT_ALICE,        /* a client's */
    CERT_MALLORY,      /* a client's, by the other authority */
    CERT_SERVER_ONLY,  /* not to be shown by clients */
    CERT_WEAK,         /* a key of RSA that is too small */
    CERT_COUNT,
};

struct test_certificate {
    X509 *x509;
    EVP_PKEY *key;
    char *chain_pem; /* with the intermediate, if one has signed it */
    char *key_pem;
};

/* Made when first asked for. */
const struct test_certificate *test_certificate(enum test_certificate_id id);
struct slice test_chain(enum test_certificate_id id);
struct slice test_key(enum test_certificate_id id);

/* PEM of the key under a passphrase; malloc'ed. */
char *test_encrypted_key(enum test_certificate_id id);

/* A response to OCSP about a certificate, DER, malloc'ed; it holds for so many seconds from now. */
struct slice test_ocsp_response(enum test_certificate_id id, long seconds);

void test_certificates_free(void);

#endif
