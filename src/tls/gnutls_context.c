/* Certificates, keys and contexts of GnuTLS: what lives longer than a session. */
#include "tls/gnutls_internal.h"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gnutls_datum_t datum_of(struct slice bytes)
{
    return (gnutls_datum_t){(unsigned char *)bytes.ptr, (unsigned)bytes.len};
}

/* A library's error in the errno that callers know. */
static int refuse(char **error, int code, const char *what)
{
    if (code == GNUTLS_E_MEMORY_ERROR) {
        tls_explain(error, "out of memory");
        return -ENOMEM;
    }
    tls_explain(error, "%s: %s", what, gnutls_strerror(code));
    return -EINVAL;
}

/* --- Certificates ----------------------------------------------------------------------------- */

static int load_chain(struct tls_gnutls_loaded *loaded, struct slice pem, gnutls_x509_crt_t *leaf,
                      char **error)
{
    gnutls_x509_crt_t *list = NULL;
    unsigned count = 0;
    gnutls_datum_t data = datum_of(pem);
    if (!pem.len) {
        tls_explain(error, "the certificate chain is empty");
        return -EINVAL;
    }
    int code = gnutls_x509_crt_list_import2(&list, &count, &data, GNUTLS_X509_FMT_PEM, 0);
    if (code < 0)
        return refuse(error, code, "the certificate chain cannot be read");
    loaded->chain = calloc(count, sizeof(*loaded->chain));
    code = loaded->chain ? 0 : GNUTLS_E_MEMORY_ERROR;
    for (unsigned i = 0; i < count && code >= 0; i++) {
        code = gnutls_pcert_import_x509(&loaded->chain[i], list[i], 0);
        loaded->chain_count += code >= 0;
    }
    for (unsigned i = code < 0 ? 0 : 1; i < count; i++)
        gnutls_x509_crt_deinit(list[i]);
    if (code >= 0)
        *leaf = list[0];
    gnutls_free(list);
    return code < 0 ? refuse(error, code, "the certificate chain cannot be read") : 0;
}

static bool contains(struct slice text, const char *word)
{
    return text.len && memmem(text.ptr, text.len, word, strlen(word));
}

static int load_key(struct slice pem, gnutls_x509_privkey_t *key, char **error)
{
    gnutls_datum_t data = datum_of(pem);
    if (contains(pem, "ENCRYPTED")) {
        tls_explain(error, "the private key is encrypted");
        return -EINVAL;
    }
    if (!contains(pem, "PRIVATE KEY-----")) {
        tls_explain(error, "the private key cannot be read: there is none in it");
        return -EINVAL;
    }
    int code = gnutls_x509_privkey_init(key);
    if (code < 0) {
        *key = NULL;
        return refuse(error, code, "the private key cannot be read");
    }
    code = gnutls_x509_privkey_import2(*key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
    return code < 0 ? refuse(error, code, "the private key cannot be read") : 0;
}

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
        return refuse(error, code, "the private key cannot be compared with the certificate");
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

static int settle_kind(struct tls_certificate *certificate, gnutls_x509_privkey_t key, char **error)
{
    struct tls_gnutls_loaded *loaded = certificate->loaded;
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
        tls_explain(error, "the private key is of a kind that is not served: use ECDSA or RSA");
        return -EINVAL;
    }
}

/* The DNS names of subjectAltName, else the common name. */
static int find_names(gnutls_x509_crt_t leaf, struct tls_names *names)
{
    char name[TLS_NAME_MAX_BYTES];
    for (unsigned i = 0;; i++) {
        size_t size = sizeof(name);
        unsigned type = 0;
        int code = gnutls_x509_crt_get_subject_alt_name2(leaf, i, name, &size, &type, NULL);
        if (code == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (code < 0 || type != GNUTLS_SAN_DNSNAME)
            continue; /* too long to be a name, or something else */
        if (tls_names_add(names, name, size) != 0)
            return -ENOMEM;
    }
    size_t size = sizeof(name);
    if (!names->count &&
        gnutls_x509_crt_get_dn_by_oid(leaf, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size) == 0)
        return tls_names_add(names, name, size);
    return 0;
}

static int keep_ocsp(struct tls_gnutls_loaded *loaded, struct slice ocsp)
{
    if (!ocsp.len)
        return 0;
    loaded->ocsp.response.data = malloc(ocsp.len);
    if (!loaded->ocsp.response.data)
        return -ENOMEM;
    memcpy(loaded->ocsp.response.data, ocsp.ptr, ocsp.len);
    loaded->ocsp.response.size = (unsigned)ocsp.len;
    return 0;
}

/* Hands the key over to a handle that signs. */
static int keep_key(struct tls_gnutls_loaded *loaded, gnutls_x509_privkey_t *key, char **error)
{
    int code = gnutls_privkey_init(&loaded->key);
    if (code < 0) {
        loaded->key = NULL;
        return refuse(error, code, "the private key cannot be used");
    }
    code = gnutls_privkey_import_x509(loaded->key, *key, GNUTLS_PRIVKEY_IMPORT_AUTO_RELEASE);
    if (code < 0)
        return refuse(error, code, "the private key cannot be used");
    *key = NULL;
    return 0;
}

static int complete(struct tls_certificate *certificate,
                    const struct tls_certificate_config *config, gnutls_x509_crt_t leaf,
                    gnutls_x509_privkey_t *key, char **error)
{
    int result = compare(leaf, *key, error);
    if (result == 0)
        result = settle_kind(certificate, *key, error);
    if (result == 0)
        result = keep_key(certificate->loaded, key, error);
    if (result < 0)
        return result;
    if ((!config->names && find_names(leaf, &certificate->names) < 0) ||
        keep_ocsp(certificate->loaded, config->ocsp) < 0)
        return refuse(error, GNUTLS_E_MEMORY_ERROR, "");
    return 0;
}

int tls_gnutls_certificate_load(struct tls_certificate *certificate,
                                const struct tls_certificate_config *config, char **error)
{
    gnutls_x509_crt_t leaf = NULL;
    gnutls_x509_privkey_t key = NULL;
    certificate->loaded = calloc(1, sizeof(struct tls_gnutls_loaded));
    if (!certificate->loaded)
        return refuse(error, GNUTLS_E_MEMORY_ERROR, "");
    int result = load_chain(certificate->loaded, config->chain, &leaf, error);
    if (result == 0)
        result = load_key(config->key, &key, error);
    if (result == 0)
        result = complete(certificate, config, leaf, &key, error);
    if (key)
        gnutls_x509_privkey_deinit(key);
    if (leaf)
        gnutls_x509_crt_deinit(leaf);
    if (result < 0) {
        tls_gnutls_certificate_free(certificate->loaded);
        certificate->loaded = NULL;
    }
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

/* --- Policies --------------------------------------------------------------------------------- */

static void add_word(char *text, size_t size, const char *word)
{
    size_t len = strlen(text);
    int added = snprintf(text + len, size - len, ":%s", word);
    assert(added > 0 && (size_t)added < size - len);
}

/* Everything starts from nothing: what is not written here is not spoken. ECDHE only, AEAD only. */
static void write_priorities(const struct tls_policy *policy, bool server, char *text, size_t size)
{
    static const char *const ciphers[TLS_CIPHER_COUNT] = {
        [TLS_AES128_GCM] = "+AES-128-GCM",
        [TLS_AES256_GCM] = "+AES-256-GCM",
        [TLS_CHACHA20_POLY1305] = "+CHACHA20-POLY1305",
    };
    static const char *const groups[TLS_GROUP_COUNT] = {
        [TLS_X25519] = "+GROUP-X25519",
        [TLS_SECP256R1] = "+GROUP-SECP256R1",
        [TLS_SECP384R1] = "+GROUP-SECP384R1",
        [TLS_SECP521R1] = "+GROUP-SECP521R1",
    };
    static const char signatures[] =
        "+SIGN-ECDSA-SECP256R1-SHA256:+SIGN-ECDSA-SHA256:+SIGN-EDDSA-ED25519:"
        "+SIGN-ECDSA-SECP384R1-SHA384:+SIGN-ECDSA-SHA384:+SIGN-EDDSA-ED448:"
        "+SIGN-ECDSA-SECP521R1-SHA512:+SIGN-ECDSA-SHA512:"
        "+SIGN-RSA-PSS-RSAE-SHA256:+SIGN-RSA-PSS-SHA256:+SIGN-RSA-SHA256:"
        "+SIGN-RSA-PSS-RSAE-SHA384:+SIGN-RSA-PSS-SHA384:+SIGN-RSA-SHA384:"
        "+SIGN-RSA-PSS-RSAE-SHA512:+SIGN-RSA-PSS-SHA512:+SIGN-RSA-SHA512";
    snprintf(text, size, "NONE:+CTYPE-X509:+AEAD:+ECDHE-ECDSA:+ECDHE-RSA");
    if (policy->version_max >= TLS_1_3)
        add_word(text, size, "+VERS-TLS1.3");
    if (policy->version_min <= TLS_1_2)
        add_word(text, size, "+VERS-TLS1.2");
    for (unsigned i = 0; i < policy->cipher_count; i++)
        add_word(text, size, ciphers[policy->ciphers[i]]);
    for (unsigned i = 0; i < policy->group_count; i++)
        add_word(text, size, groups[policy->groups[i]]);
    add_word(text, size, signatures);
    add_word(text, size, "%PROFILE_MEDIUM");
    add_word(text, size, server ? "%SERVER_PRECEDENCE" : "%SAFE_RENEGOTIATION");
}

/* --- Contexts --------------------------------------------------------------------------------- */

static int set_alpn(struct tls_gnutls_context *context, const struct tls_policy *policy,
                    char **error)
{
    for (; policy->alpn && policy->alpn[context->alpn_count]; context->alpn_count++) {
        const char *name = policy->alpn[context->alpn_count];
        if (context->alpn_count == TLS_GNUTLS_ALPN_MAX_COUNT) {
            tls_explain(error, "more than %d protocols for ALPN", TLS_GNUTLS_ALPN_MAX_COUNT);
            return -EINVAL;
        }
        context->alpn[context->alpn_count] =
            (gnutls_datum_t){(unsigned char *)name, (unsigned)strlen(name)};
    }
    return 0;
}

static int create(struct tls_gnutls_context *context, const struct tls_policy *policy, bool server,
                  char **error)
{
    char priorities[1024];
    write_priorities(policy, server, priorities, sizeof(priorities));
    int code = gnutls_priority_init(&context->priorities, priorities, NULL);
    if (code < 0) {
        context->priorities = NULL;
        return refuse(error, code, "these ciphers and groups cannot be used");
    }
    code = gnutls_certificate_allocate_credentials(&context->credentials);
    if (code < 0) {
        context->credentials = NULL;
        return refuse(error, code, "no credentials can be made");
    }
    gnutls_certificate_set_retrieve_function3(context->credentials, tls_gnutls_on_retrieve);
    /* Stapled responses are for browsers: OpenSSL's client does not ask for them. */
    gnutls_certificate_set_verify_flags(context->credentials, GNUTLS_VERIFY_DISABLE_CRL_CHECKS);
    return set_alpn(context, policy, error);
}

static int set_authorities(struct tls_gnutls_context *context, struct slice pem, char **error)
{
    gnutls_datum_t data = datum_of(pem);
    int code =
        gnutls_certificate_set_x509_trust_mem(context->credentials, &data, GNUTLS_X509_FMT_PEM);
    if (code == 0)
        code = GNUTLS_E_NO_CERTIFICATE_FOUND;
    return code < 0 ? refuse(error, code, "the authorities cannot be read") : 0;
}

/* Sessions are resumed without asking for a certificate again. So tickets must be of no use where
 * other clients are let in: the key is derived from who is. */
static int derive_ticket_key(struct tls_gnutls_context *context,
                             const struct tls_server_config *config, char **error)
{
    gnutls_hmac_hd_t hmac;
    uint8_t auth = (uint8_t)config->client_auth;
    static_assert(sizeof(context->ticket_key) == 64, "SHA-512 and GnuTLS agree on a key's size");
    int code =
        gnutls_hmac_init(&hmac, GNUTLS_MAC_SHA512, config->ticket_secret, TLS_TICKET_SECRET_BYTES);
    if (code < 0)
        return refuse(error, code, "no key for tickets can be made");
    code = gnutls_hmac(hmac, &auth, sizeof(auth));
    if (code >= 0 && config->client_auth != TLS_CLIENT_NONE)
        code = gnutls_hmac(hmac, config->client_authorities.ptr, config->client_authorities.len);
    gnutls_hmac_deinit(hmac, context->ticket_key);
    context->tickets = true;
    return code < 0 ? refuse(error, code, "no key for tickets can be made") : 0;
}

static int finish(struct tls_gnutls_context *context, int result, void **owner)
{
    *owner = result == 0 ? context : NULL;
    if (result < 0)
        tls_gnutls_context_destroy(context);
    return result;
}

int tls_gnutls_server_create(struct tls_server *server, char **error)
{
    const struct tls_server_config *config = &server->config;
    struct tls_gnutls_context *context = calloc(1, sizeof(*context));
    if (!context)
        return refuse(error, GNUTLS_E_MEMORY_ERROR, "");
    int result = create(context, &config->policy, true, error);
    if (result == 0 && config->client_auth != TLS_CLIENT_NONE)
        result = set_authorities(context, config->client_authorities, error);
    if (result == 0 && config->ticket_secret)
        result = derive_ticket_key(context, config, error);
    return finish(context, result, &server->context);
}

int tls_gnutls_client_create(struct tls_client *client, char **error)
{
    const struct tls_client_config *config = &client->config;
    struct tls_gnutls_context *context = calloc(1, sizeof(*context));
    if (!context)
        return refuse(error, GNUTLS_E_MEMORY_ERROR, "");
    int result = create(context, &config->policy, false, error);
    if (result == 0 && config->authorities.len)
        result = set_authorities(context, config->authorities, error);
    else if (result == 0 && !config->insecure)
        gnutls_certificate_set_x509_system_trust(context->credentials); /* none: none is trusted */
    return finish(context, result, &client->context);
}

void tls_gnutls_context_destroy(void *owned)
{
    struct tls_gnutls_context *context = owned;
    if (context->credentials)
        gnutls_certificate_free_credentials(context->credentials);
    if (context->priorities)
        gnutls_priority_deinit(context->priorities);
    gnutls_memset(context->ticket_key, 0, sizeof(context->ticket_key));
    free(context);
}
