/* Certificates of OpenSSL: a chain, its key and the OCSP response for it, checked when loaded. */
#include "tls/openssl_internal.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* --- Reading PEM ------------------------------------------------------------------------------ */

static BIO *open_text(struct slice text)
{
    if (text.len > INT_MAX)
        return NULL;
    return BIO_new_mem_buf(text.len ? text.ptr : "", (int)text.len);
}

static bool push_certificate(STACK_OF(X509) * certificates, X509 *certificate)
{
    if (sk_X509_push(certificates, certificate) > 0)
        return true;
    X509_free(certificate);
    return false;
}

/* Reads on until there is no further one, which is not an error behind the first. */
static bool read_all(BIO *bio, STACK_OF(X509) * certificates)
{
    X509 *certificate;
    while ((certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        if (!push_certificate(certificates, certificate))
            return false;
    return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

STACK_OF(X509) * openssl_read_certificates(struct slice pem, const char *what, char **error)
{
    ERR_clear_error();
    STACK_OF(X509) *certificates = sk_X509_new_null();
    BIO *bio = certificates ? open_text(pem) : NULL;
    bool read = bio && read_all(bio, certificates);
    int count = sk_X509_num(certificates);
    BIO_free(bio);
    if (read && count > 0) {
        ERR_clear_error();
        return certificates;
    }
    if (!bio)
        tls_explain(error, "out of memory");
    else if (read)
        tls_explain(error, "there is no certificate in %s", what);
    else
        tls_explain(error, "certificate %d of %s is damaged: %s", count + 1, what,
                    openssl_reason());
    ERR_clear_error();
    sk_X509_pop_free(certificates, X509_free);
    return NULL;
}

/* There is nobody to ask for a passphrase. */
static int refuse_passphrase(char *passphrase, int size, int writes, void *is_encrypted)
{
    (void)passphrase;
    (void)size;
    (void)writes;
    *(bool *)is_encrypted = true;
    return -1;
}

static EVP_PKEY *read_key(struct slice pem, char **error)
{
    bool is_encrypted = false;
    ERR_clear_error();
    BIO *bio = open_text(pem);
    EVP_PKEY *key =
        bio ? PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &is_encrypted) : NULL;
    unsigned long code = ERR_peek_last_error();
    if (key)
        ERR_clear_error();
    else if (!bio)
        tls_explain(error, "out of memory");
    else if (is_encrypted)
        tls_explain(error, "the private key is encrypted: store it without a passphrase");
    else if (!memmem(pem.len ? pem.ptr : "", pem.len, "PRIVATE KEY-----", 16))
        tls_explain(error, "there is no private key in the key's file");
    else
        tls_explain(error, "the private key is damaged: %s", ERR_reason_error_string(code));
    ERR_clear_error();
    BIO_free(bio);
    return key;
}

/* --- Names ------------------------------------------------------------------------------------ */

static int add_alternative_names(struct tls_names *names, X509 *leaf)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    int result = 0;
    for (int i = 0; result == 0 && i < sk_GENERAL_NAME_num(all); i++) {
        int type;
        const ASN1_STRING *name = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(all, i), &type);
        if (type == GEN_DNS)
            result = tls_names_add(names, (const char *)ASN1_STRING_get0_data(name),
                                   (size_t)ASN1_STRING_length(name));
    }
    GENERAL_NAMES_free(all);
    return result;
}

static int add_common_name(struct tls_names *names, X509 *leaf)
{
    const X509_NAME *subject = X509_get_subject_name(leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;
    if (at < 0)
        return 0;
    int len =
        ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (len < 0)
        return 0;
    int result = tls_names_add(names, (const char *)text, (size_t)len);
    OPENSSL_free(text);
    return result;
}

static int add_names(struct tls_names *names, X509 *leaf)
{
    int result = add_alternative_names(names, leaf);
    return result < 0 || names->count ? result : add_common_name(names, leaf);
}

/* --- OCSP ------------------------------------------------------------------------------------- */

static time_t end_of(const ASN1_TIME *time)
{
    struct tm parts;
    if (!time || ASN1_TIME_to_tm(time, &parts) != 1)
        return 0;
    return timegm(&parts);
}

static const OCSP_SINGLERESP *find_serial(OCSP_BASICRESP *basic, const ASN1_INTEGER *serial)
{
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        ASN1_INTEGER *other = NULL;
        OCSP_id_get0_info(NULL, NULL, NULL, &other, (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(single));
        if (other && ASN1_INTEGER_cmp(other, serial) == 0)
            return single;
    }
    return NULL;
}

/* NULL, or what is wrong with the response. */
static const char *check_response(OCSP_RESPONSE *response, X509 *leaf, time_t *end)
{
    OCSP_BASICRESP *basic = response ? OCSP_response_get1_basic(response) : NULL;
    ASN1_GENERALIZEDTIME *next = NULL;
    if (!response)
        return "it cannot be read";
    if (!basic)
        return OCSP_response_status_str(OCSP_response_status(response));
    const OCSP_SINGLERESP *single = find_serial(basic, X509_get0_serialNumber(leaf));
    if (single)
        OCSP_single_get0_status((OCSP_SINGLERESP *)single, NULL, NULL, NULL, &next);
    *end = end_of(next);
    OCSP_BASICRESP_free(basic);
    return single ? NULL : "it is about another certificate";
}

static int load_response(struct openssl_certificate *loaded, struct slice der, char **error)
{
    const unsigned char *bytes = (const unsigned char *)der.ptr;
    if (!der.len)
        return 0;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &bytes, (long)der.len);
    const char *wrong = check_response(response, loaded->leaf, &loaded->ocsp_end);
    OCSP_RESPONSE_free(response);
    if (wrong) {
        tls_explain(error, "the OCSP response cannot be used: %s", wrong);
        return -EINVAL;
    }
    loaded->ocsp = OPENSSL_memdup(der.ptr, der.len);
    loaded->ocsp_len = der.len;
    return loaded->ocsp ? 0 : -ENOMEM;
}

/* --- Loading ---------------------------------------------------------------------------------- */

void openssl_certificate_free(void *loaded)
{
    struct openssl_certificate *own = loaded;
    X509_free(own->leaf);
    sk_X509_pop_free(own->intermediates, X509_free);
    EVP_PKEY_free(own->key);
    OPENSSL_free(own->ocsp);
    free(own);
}

static int read_kind(const EVP_PKEY *key, enum tls_key_kind *kind, char **error)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
    case EVP_PKEY_ED25519:
    case EVP_PKEY_ED448:
        *kind = TLS_KEY_ECDSA;
        return 0;
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
        *kind = TLS_KEY_RSA;
        return 0;
    default:
        tls_explain(error, "the key is neither an elliptic curve's nor RSA");
        return -EINVAL;
    }
}

/* Would a session take it? Keys may be too small, digests too weak. */
static int rehearse(const struct openssl_certificate *loaded, char **error)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    int used =
        ctx ? SSL_CTX_use_cert_and_key(ctx, loaded->leaf, loaded->key, loaded->intermediates, 1)
            : 0;
    SSL_CTX_free(ctx);
    if (used == 1)
        return 0;
    tls_explain(error, "the certificate cannot be used: %s", openssl_reason());
    return -EINVAL;
}

static int load_pair(struct openssl_certificate *loaded,
                     const struct tls_certificate_config *config, char **error)
{
    loaded->intermediates = openssl_read_certificates(config->chain, "the chain", error);
    if (!loaded->intermediates)
        return -EINVAL;
    loaded->leaf = sk_X509_shift(loaded->intermediates);
    loaded->key = read_key(config->key, error);
    if (!loaded->key)
        return -EINVAL;
    if (X509_check_private_key(loaded->leaf, loaded->key) == 1)
        return 0;
    tls_explain(error, "the private key does not belong to the certificate");
    return -EINVAL;
}

static int load(struct tls_certificate *certificate, struct openssl_certificate *loaded,
                const struct tls_certificate_config *config, char **error)
{
    int result = load_pair(loaded, config, error);
    if (result == 0)
        result = read_kind(loaded->key, &certificate->kind, error);
    if (result == 0)
        result = rehearse(loaded, error);
    if (result == 0)
        result = load_response(loaded, config->ocsp, error);
    if (result == 0 && !config->names)
        result = add_names(&certificate->names, loaded->leaf);
    if (result == 0)
        certificate->end_s = end_of(X509_get0_notAfter(loaded->leaf));
    return result;
}

int openssl_certificate_load(struct tls_certificate *certificate,
                             const struct tls_certificate_config *config, char **error)
{
    struct openssl_certificate *loaded = calloc(1, sizeof(*loaded));
    int result = loaded ? load(certificate, loaded, config, error) : -ENOMEM;
    ERR_clear_error();
    if (result == 0) {
        certificate->loaded = loaded;
        return 0;
    }
    if (!*error)
        tls_explain(error, "out of memory");
    if (loaded)
        openssl_certificate_free(loaded);
    return result;
}
