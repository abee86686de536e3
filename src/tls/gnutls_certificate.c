/* Certificates of GnuTLS: a chain, its key and the OCSP response for it, checked when loaded. */
#include "tls/gnutls_internal.h"

#include <gnutls/ocsp.h>

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

int tls_gnutls_refuse(char **error, int code, const char *what)
{
    if (code == GNUTLS_E_MEMORY_ERROR) {
        tls_explain(error, "out of memory");
        return -ENOMEM;
    }
    tls_explain(error, "%s: %s", what, gnutls_strerror(code));
    return -EINVAL;
}

static int refuse_without_memory(char **error)
{
    return tls_gnutls_refuse(error, GNUTLS_E_MEMORY_ERROR, "");
}

/* --- Reading PEM ------------------------------------------------------------------------------ */

static bool contains(struct slice text, const char *word)
{
    return text.len && memmem(text.ptr, text.len, word, strlen(word));
}

/* The next certificate's text in what is left of a file, taken off it. */
static bool take_certificate(struct slice *from, gnutls_datum_t *text)
{
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    const char *at = from->len ? memmem(from->ptr, from->len, begin, sizeof(begin) - 1) : NULL;
    if (!at)
        return false;
    const char *end = from->ptr + from->len;
    const char *body = at + sizeof(begin) - 1;
    const char *next = memmem(body, (size_t)(end - body), begin, sizeof(begin) - 1);
    if (!next)
        next = end;
    *text = (gnutls_datum_t){(unsigned char *)at, (unsigned)(next - at)};
    *from = slice_of(next, (size_t)(end - next));
    return true;
}

static int add_certificate(struct tls_gnutls_list *list, const gnutls_datum_t *text)
{
    gnutls_x509_crt_t *grown =
        realloc(list->certificates, (list->count + 1) * sizeof(gnutls_x509_crt_t));
    if (!grown)
        return GNUTLS_E_MEMORY_ERROR;
    list->certificates = grown;
    int code = gnutls_x509_crt_init(&grown[list->count]);
    if (code < 0)
        return code;
    code = gnutls_x509_crt_import(grown[list->count], text, GNUTLS_X509_FMT_PEM);
    if (code < 0)
        gnutls_x509_crt_deinit(grown[list->count]);
    else
        list->count++;
    return code;
}

int tls_gnutls_read_certificates(struct slice pem, const char *what, struct tls_gnutls_list *list,
                                 char **error)
{
    gnutls_datum_t text;
    int code = 0;
    *list = (struct tls_gnutls_list){0};
    while (code >= 0 && take_certificate(&pem, &text))
        code = add_certificate(list, &text);
    if (code >= 0 && list->count)
        return 0;
    if (code == GNUTLS_E_MEMORY_ERROR)
        refuse_without_memory(error);
    else if (code < 0)
        tls_explain(error, "certificate %u of %s is damaged: %s", list->count + 1, what,
                    gnutls_strerror(code));
    else
        tls_explain(error, "there is no certificate in %s", what);
    tls_gnutls_list_free(list);
    return code == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL;
}

void tls_gnutls_list_free(struct tls_gnutls_list *list)
{
    for (unsigned i = 0; i < list->count; i++)
        gnutls_x509_crt_deinit(list->certificates[i]);
    free(list->certificates);
    *list = (struct tls_gnutls_list){0};
}

static void wipe_and_free(void *memory)
{
    if (memory)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

/* The library copies the text to decode it, and frees the copy as it is. */
static int import_key(gnutls_x509_privkey_t key, const gnutls_datum_t *text)
{
    gnutls_free_function usual = gnutls_free;
    gnutls_free = wipe_and_free;
    int code = gnutls_x509_privkey_import2(key, text, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_free = usual;
    return code;
}

/* There is nobody to ask for a passphrase. */
static int read_key(struct slice pem, gnutls_x509_privkey_t *key, char **error)
{
    gnutls_datum_t text = {(unsigned char *)pem.ptr, (unsigned)pem.len};
    if (contains(pem, "BEGIN ENCRYPTED PRIVATE KEY") || contains(pem, "Proc-Type: 4,ENCRYPTED")) {
        tls_explain(error, "the private key is encrypted: store it without a passphrase");
        return -EINVAL;
    }
    if (!contains(pem, "PRIVATE KEY-----")) {
        tls_explain(error, "there is no private key in the key's file");
        return -EINVAL;
    }
    int code = gnutls_x509_privkey_init(key);
    if (code < 0) {
        *key = NULL;
        return refuse_without_memory(error);
    }
    code = import_key(*key, &text);
    return code < 0 ? tls_gnutls_refuse(error, code, "the private key is damaged") : 0;
}

/* --- Checks ----------------------------------------------------------------------------------- */

static int compare(gnutls_x509_crt_t leaf, gnutls_x509_privkey_t key, char **error)
{
    unsigned char of_leaf[64];
    unsigned char of_key[64];
    size_t leaf_size = sizeof(of_leaf);
    size_t key_size = sizeof(of_key);
    int code = gnutls_x509_crt_get_key_id(leaf, GNUTLS_KEYID_USE_SHA256, of_leaf, &leaf_size);
    if (code >= 0)
        code = gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, of_key, &key_size);
    if (code < 0)
        return tls_gnutls_refuse(error, code, "the certificate cannot be used");
    if (leaf_size == key_size && memcmp(of_leaf, of_key, key_size) == 0)
        return 0;
    tls_explain(error, "the private key does not belong to the certificate");
    return -EINVAL;
}

static gnutls_sign_algorithm_t sign_of(gnutls_x509_privkey_t key)
{
    gnutls_ecc_curve_t curve = GNUTLS_ECC_CURVE_INVALID;
    if (gnutls_x509_privkey_export_ecc_raw(key, &curve, NULL, NULL, NULL) < 0)
        return GNUTLS_SIGN_UNKNOWN;
    switch (curve) {
    case GNUTLS_ECC_CURVE_SECP256R1:
        return GNUTLS_SIGN_ECDSA_SECP256R1_SHA256;
    case GNUTLS_ECC_CURVE_SECP384R1:
        return GNUTLS_SIGN_ECDSA_SECP384R1_SHA384;
    case GNUTLS_ECC_CURVE_SECP521R1:
        return GNUTLS_SIGN_ECDSA_SECP521R1_SHA512;
    default:
        return GNUTLS_SIGN_UNKNOWN;
    }
}

static int read_kind(struct tls_certificate *certificate, struct tls_gnutls_loaded *loaded,
                     gnutls_x509_privkey_t key, char **error)
{
    loaded->algorithm = gnutls_x509_privkey_get_pk_algorithm(key);
    switch (loaded->algorithm) {
    case GNUTLS_PK_RSA:
    case GNUTLS_PK_RSA_PSS:
        certificate->kind = TLS_KEY_RSA;
        return 0;
    case GNUTLS_PK_ECDSA:
        loaded->sign = sign_of(key);
        certificate->kind = TLS_KEY_ECDSA;
        return 0;
    case GNUTLS_PK_EDDSA_ED25519:
    case GNUTLS_PK_EDDSA_ED448:
        certificate->kind = TLS_KEY_ECDSA;
        return 0;
    default:
        tls_explain(error, "the key is neither an elliptic curve's nor RSA");
        return -EINVAL;
    }
}

/* Clients would not take what has less than 112 bits of security. */
static const char *weakness(gnutls_x509_crt_t certificate, bool is_leaf)
{
    unsigned bits = 0;
    int algorithm = gnutls_x509_crt_get_pk_algorithm(certificate, &bits);
    int sign = gnutls_x509_crt_get_signature_algorithm(certificate);
    if (algorithm < 0 || gnutls_pk_bits_to_sec_param(algorithm, bits) < GNUTLS_SEC_PARAM_MEDIUM)
        return is_leaf ? "ee key too small" : "ca key too small";
    if (gnutls_x509_crt_check_issuer(certificate, certificate)) /* nobody verifies that one */
        return NULL;
    if (sign < 0 || !gnutls_sign_is_secure2(sign, GNUTLS_SIGN_FLAG_SECURE_FOR_CERTS))
        return "ca md too weak";
    return NULL;
}

static int check_strength(const struct tls_gnutls_list *chain, char **error)
{
    for (unsigned i = 0; i < chain->count; i++) {
        const char *wrong = weakness(chain->certificates[i], i == 0);
        if (!wrong)
            continue;
        tls_explain(error, "the certificate cannot be used: %s", wrong);
        return -EINVAL;
    }
    return 0;
}

/* --- OCSP ------------------------------------------------------------------------------------- */

/* NULL, or what is wrong with the response. */
static const char *check_response(gnutls_ocsp_resp_const_t response, gnutls_x509_crt_t leaf,
                                  time_t *end)
{
    unsigned char serial[64];
    unsigned char wanted[64];
    size_t wanted_size = sizeof(wanted);
    gnutls_datum_t found = {serial, 0};
    if (gnutls_ocsp_resp_get_status(response) != GNUTLS_OCSP_RESP_SUCCESSFUL)
        return "it tells of an error";
    if (gnutls_x509_crt_get_serial(leaf, wanted, &wanted_size) < 0)
        return "the certificate has no serial number";
    for (unsigned i = 0;; i++) {
        time_t next = -1;
        if (gnutls_ocsp_resp_get_single(response, i, NULL, NULL, NULL, &found, NULL, NULL, &next,
                                        NULL, NULL) < 0)
            return "it is about another certificate";
        bool same = found.size == wanted_size && memcmp(found.data, wanted, wanted_size) == 0;
        gnutls_free(found.data);
        if (same) {
            *end = next == (time_t)-1 ? 0 : next;
            return NULL;
        }
    }
}

static int load_response(struct tls_gnutls_loaded *loaded, gnutls_x509_crt_t leaf, struct slice der,
                         char **error)
{
    gnutls_datum_t bytes = {(unsigned char *)der.ptr, (unsigned)der.len};
    gnutls_ocsp_resp_t response;
    if (!der.len)
        return 0;
    if (gnutls_ocsp_resp_init(&response) < 0)
        return refuse_without_memory(error);
    const char *wrong = gnutls_ocsp_resp_import(response, &bytes) < 0
                            ? "it cannot be read"
                            : check_response(response, leaf, &loaded->ocsp.exptime);
    gnutls_ocsp_resp_deinit(response);
    if (wrong) {
        tls_explain(error, "the OCSP response cannot be used: %s", wrong);
        return -EINVAL;
    }
    loaded->ocsp.response.data = malloc(der.len);
    if (!loaded->ocsp.response.data)
        return refuse_without_memory(error);
    memcpy(loaded->ocsp.response.data, der.ptr, der.len);
    loaded->ocsp.response.size = bytes.size;
    return 0;
}

/* --- Names ------------------------------------------------------------------------------------ */

/* The DNS names of subjectAltName, else the common name. */
static int add_names(struct tls_names *names, gnutls_x509_crt_t leaf, char **error)
{
    char name[TLS_NAME_MAX_BYTES];
    unsigned type = 0;
    size_t size = sizeof(name);
    int result = 0;
    int code = 0;
    for (unsigned i = 0; result == 0 && code != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE; i++) {
        size = sizeof(name);
        code = gnutls_x509_crt_get_subject_alt_name2(leaf, i, name, &size, &type, NULL);
        if (code >= 0 && type == GNUTLS_SAN_DNSNAME) /* what is too long is no name */
            result = tls_names_add(names, name, size);
    }
    size = sizeof(name);
    if (result == 0 && !names->count &&
        gnutls_x509_crt_get_dn_by_oid(leaf, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size) == 0)
        result = tls_names_add(names, name, size);
    return result < 0 ? refuse_without_memory(error) : 0;
}

/* --- Loading ---------------------------------------------------------------------------------- */

static int keep_chain(struct tls_gnutls_loaded *loaded, const struct tls_gnutls_list *chain,
                      char **error)
{
    loaded->chain = calloc(chain->count, sizeof(*loaded->chain));
    if (!loaded->chain)
        return refuse_without_memory(error);
    for (unsigned i = 0; i < chain->count; i++) {
        int code = gnutls_pcert_import_x509(&loaded->chain[i], chain->certificates[i], 0);
        if (code < 0)
            return tls_gnutls_refuse(error, code, "the certificate cannot be used");
        loaded->chain_count++;
    }
    return 0;
}

/* Hands the key over to a handle that signs. */
static int keep_key(struct tls_gnutls_loaded *loaded, gnutls_x509_privkey_t *key, char **error)
{
    int code = gnutls_privkey_init(&loaded->key);
    if (code < 0) {
        loaded->key = NULL;
        return refuse_without_memory(error);
    }
    code = gnutls_privkey_import_x509(loaded->key, *key, GNUTLS_PRIVKEY_IMPORT_AUTO_RELEASE);
    if (code < 0)
        return tls_gnutls_refuse(error, code, "the private key cannot be used");
    *key = NULL;
    return 0;
}

static int load(struct tls_certificate *certificate, struct tls_gnutls_loaded *loaded,
                const struct tls_certificate_config *config, const struct tls_gnutls_list *chain,
                char **error)
{
    gnutls_x509_privkey_t key = NULL;
    int result = read_key(config->key, &key, error);
    if (result == 0)
        result = compare(chain->certificates[0], key, error);
    if (result == 0)
        result = read_kind(certificate, loaded, key, error);
    if (result == 0)
        result = check_strength(chain, error);
    if (result == 0)
        result = load_response(loaded, chain->certificates[0], config->ocsp, error);
    if (result == 0 && !config->names)
        result = add_names(&certificate->names, chain->certificates[0], error);
    if (result == 0)
        result = keep_chain(loaded, chain, error);
    if (result == 0)
        result = keep_key(loaded, &key, error);
    if (result == 0)
        certificate->end_s = gnutls_x509_crt_get_expiration_time(chain->certificates[0]);
    if (key)
        gnutls_x509_privkey_deinit(key);
    return result;
}

int tls_gnutls_certificate_load(struct tls_certificate *certificate,
                                const struct tls_certificate_config *config, char **error)
{
    struct tls_gnutls_list chain;
    int result = tls_gnutls_read_certificates(config->chain, "the chain", &chain, error);
    if (result < 0)
        return result;
    struct tls_gnutls_loaded *loaded = calloc(1, sizeof(*loaded));
    result =
        loaded ? load(certificate, loaded, config, &chain, error) : refuse_without_memory(error);
    tls_gnutls_list_free(&chain);
    if (result == 0)
        certificate->loaded = loaded;
    else if (loaded)
        tls_gnutls_certificate_free(loaded);
    return result;
}

void tls_gnutls_certificate_free(void *owned)
{
    struct tls_gnutls_loaded *loaded = owned;
    for (unsigned i = 0; i < loaded->chain_count; i++)
        gnutls_pcert_deinit(&loaded->chain[i]);
    if (loaded->key)
        gnutls_privkey_deinit(loaded->key);
    free(loaded->ocsp.response.data);
    free(loaded->chain);
    free(loaded);
}
