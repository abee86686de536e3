#include "tls_certificates.h"

#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { DAY_S = 24 * 3600 };

#define ONE_NAMES "DNS:one.example,DNS:*.wild.example,IP:127.0.0.1,IP:::1"

static const struct plan {
    const char *name; /* the common name */
    const char *names;
    const char *usage; /* NULL: an authority */
    enum test_certificate_id issuer;
    int rsa_bits; /* 0: the curve P-256 */
    int from_days;
    int until_days;
} plans[CERT_COUNT] = {
    [CERT_CA] = {"Test CA", NULL, NULL, CERT_CA, 0, -2, 30},
    [CERT_OTHER_CA] = {"Other CA", NULL, NULL, CERT_OTHER_CA, 0, -2, 30},
    [CERT_INTERMEDIATE] = {"Intermediate CA", NULL, NULL, CERT_CA, 0, -2, 30},
    [CERT_ONE_ECDSA] = {"one", ONE_NAMES, "serverAuth", CERT_CA, 0, -2, 30},
    [CERT_ONE_RSA] = {"one", ONE_NAMES, "serverAuth", CERT_CA, 2048, -2, 30},
    [CERT_TWO_ECDSA] = {"two", "DNS:two.example,DNS:exact.wild.example", "serverAuth",
                        CERT_INTERMEDIATE, 0, -2, 30},
    [CERT_COMMON_NAME] = {"common.example", NULL, "serverAuth", CERT_CA, 0, -2, 30},
    [CERT_EXPIRED] = {"one", "DNS:one.example", "serverAuth", CERT_CA, 0, -2, -1},
    [CERT_EARLY] = {"one", "DNS:one.example", "serverAuth", CERT_CA, 0, 1, 30},
    [CERT_FOREIGN] = {"one", "DNS:one.example", "serverAuth", CERT_OTHER_CA, 0, -2, 30},
    [CERT_ALICE] = {"alice",
                    "DNS:a.example,URI:spiffe://example/alice,email:alice@example.com,IP:10.0.0.1",
                    "clientAuth", CERT_CA, 0, -2, 30},
    [CERT_MALLORY] = {"alice", "DNS:a.example", "clientAuth", CERT_OTHER_CA, 0, -2, 30},
    [CERT_SERVER_ONLY] = {"alice", "DNS:a.example", "serverAuth", CERT_CA, 0, -2, 30},
    [CERT_WEAK] = {"one", "DNS:one.example", "serverAuth", CERT_CA, 1024, -2, 30},
};

static struct test_certificate made[CERT_COUNT];

static EVP_PKEY *make_key(const struct plan *plan)
{
    EVP_PKEY *key = plan->rsa_bits ? EVP_RSA_gen((unsigned)plan->rsa_bits) : EVP_EC_gen("P-256");
    assert(key);
    return key;
}

static void set_name(X509_NAME *name, const struct plan *plan)
{
    X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Example, Inc.", -1,
                               -1, 0);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)plan->name, -1, -1,
                               0);
}

static void extend(X509 *x509, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert(extension);
    X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
}

static void set_extensions(X509 *x509, X509 *issuer, const struct plan *plan)
{
    extend(x509, issuer, NID_subject_key_identifier, "hash");
    if (plan->usage) {
        extend(x509, issuer, NID_basic_constraints, "critical,CA:FALSE");
        extend(x509, issuer, NID_key_usage, "critical,digitalSignature");
        extend(x509, issuer, NID_ext_key_usage, plan->usage);
    } else {
        extend(x509, issuer, NID_basic_constraints, "critical,CA:TRUE");
        extend(x509, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
    }
    if (plan->names)
        extend(x509, issuer, NID_subject_alt_name, plan->names);
}

static char *take_text(BIO *bio)
{
    char *bytes;
    long len = BIO_get_mem_data(bio, &bytes);
    char *text = strndup(bytes, (size_t)len);
    BIO_free(bio);
    return text;
}

static char *chain_text(const struct test_certificate *certificate, const struct plan *plan)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, certificate->x509);
    if (plan->issuer == CERT_INTERMEDIATE)
        PEM_write_bio_X509(bio, made[CERT_INTERMEDIATE].x509);
    return take_text(bio);
}

static char *key_text(EVP_PKEY *key, const EVP_CIPHER *cipher)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PKCS8PrivateKey(bio, key, cipher, cipher ? "secret" : NULL, cipher ? 6 : 0, NULL,
                                  NULL);
    return take_text(bio);
}

static void make(enum test_certificate_id id)
{
    const struct plan *plan = &plans[id];
    struct test_certificate *own = &made[id];
    const struct test_certificate *issuer =
        plan->issuer == id ? own : test_certificate(plan->issuer);
    own->key = make_key(plan);
    own->x509 = X509_new();
    X509_set_version(own->x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(own->x509), 0xabc0 + id);
    X509_time_adj_ex(X509_getm_notBefore(own->x509), plan->from_days, 0, NULL);
    X509_time_adj_ex(X509_getm_notAfter(own->x509), plan->until_days, 0, NULL);
    X509_set_pubkey(own->x509, own->key);
    set_name(X509_get_subject_name(own->x509), plan);
    X509_set_issuer_name(own->x509, X509_get_subject_name(issuer->x509));
    set_extensions(own->x509, issuer->x509, plan);
    int signature_len = X509_sign(own->x509, issuer->key, EVP_sha256());
    assert(signature_len > 0);
    own->chain_pem = chain_text(own, plan);
    own->key_pem = key_text(own->key, NULL);
}

const struct test_certificate *test_certificate(enum test_certificate_id id)
{
    if (!made[id].x509)
        make(id);
    return &made[id];
}

struct slice test_chain(enum test_certificate_id id)
{
    return slice_from_cstr(test_certificate(id)->chain_pem);
}

struct slice test_key(enum test_certificate_id id)
{
    return slice_from_cstr(test_certificate(id)->key_pem);
}

char *test_encrypted_key(enum test_certificate_id id)
{
    return key_text(test_certificate(id)->key, EVP_aes_256_cbc());
}

struct slice test_ocsp_response(enum test_certificate_id id, long seconds)
{
    const struct test_certificate *subject = test_certificate(id);
    const struct test_certificate *issuer = test_certificate(plans[id].issuer);
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *about = OCSP_cert_to_id(EVP_sha1(), subject->x509, issuer->x509);
    ASN1_TIME *from = X509_gmtime_adj(NULL, -DAY_S);
    ASN1_TIME *until = X509_gmtime_adj(NULL, seconds);
    OCSP_basic_add1_status(basic, about, V_OCSP_CERTSTATUS_GOOD, 0, NULL, from, until);
    OCSP_basic_sign(basic, issuer->x509, issuer->key, EVP_sha256(), NULL, 0);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *der = NULL;
    int len = i2d_OCSP_RESPONSE(response, &der);
    assert(len > 0);
    struct slice copy = slice_of(memcpy(malloc((size_t)len), der, (size_t)len), (size_t)len);
    OPENSSL_free(der);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(about);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return copy;
}

void test_certificates_free(void)
{
    for (unsigned id = 0; id < CERT_COUNT; id++) {
        X509_free(made[id].x509);
        EVP_PKEY_free(made[id].key);
        free(made[id].chain_pem);
        free(made[id].key_pem);
        made[id] = (struct test_certificate){0};
    }
}
