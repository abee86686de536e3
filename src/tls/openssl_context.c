/* Contexts of OpenSSL: what a server or client may choose, and whom it trusts. */
#include "tls/openssl_internal.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAIN_DEPTH_MAX = 8 };

/* --- Policies --------------------------------------------------------------------------------- */

static const struct {
    const char *ecdsa; /* of TLS 1.2 */
    const char *rsa;
    const char *suite; /* of TLS 1.3 */
} ciphers[TLS_CIPHER_COUNT] = {
    [TLS_AES128_GCM] = {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
                        "TLS_AES_128_GCM_SHA256"},
    [TLS_AES256_GCM] = {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
                        "TLS_AES_256_GCM_SHA384"},
    [TLS_CHACHA20_POLY1305] = {"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
                               "TLS_CHACHA20_POLY1305_SHA256"},
};

static const int groups[TLS_GROUP_COUNT] = {
    [TLS_X25519] = NID_X25519,
    [TLS_SECP256R1] = NID_X9_62_prime256v1,
    [TLS_SECP384R1] = NID_secp384r1,
    [TLS_SECP521R1] = NID_secp521r1,
};

/* ECDSA first; nothing with SHA-1. */
static const char signatures[] =
    "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed25519:ed448:"
    "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"
    "rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:"
    "rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512";

/* A list with colons between, as the library reads it. */
struct list {
    char text[256];
    size_t len;
};

static void append(struct list *list, const char *name)
{
    size_t room = sizeof(list->text) - list->len;
    int len = snprintf(list->text + list->len, room, "%s%s", list->len ? ":" : "", name);
    assert(len > 0 && (size_t)len < room);
    list->len += (size_t)len;
}

static bool set_ciphers(SSL_CTX *ctx, const struct tls_policy *policy)
{
    struct list suites = {.len = 0};
    struct list of_1_2 = {.len = 0};
    for (unsigned i = 0; i < policy->cipher_count; i++) {
        append(&suites, ciphers[policy->ciphers[i]].suite);
        append(&of_1_2, ciphers[policy->ciphers[i]].ecdsa);
        if (policy->ciphers[i] == TLS_CHACHA20_POLY1305)
            SSL_CTX_set_options(ctx, SSL_OP_PRIORITIZE_CHACHA);
    }
    for (unsigned i = 0; i < policy->cipher_count; i++)
        append(&of_1_2, ciphers[policy->ciphers[i]].rsa);
    return SSL_CTX_set_ciphersuites(ctx, suites.text) == 1 &&
           SSL_CTX_set_cipher_list(ctx, of_1_2.text) == 1;
}

static bool set_groups(SSL_CTX *ctx, const struct tls_policy *policy)
{
    int list[TLS_GROUP_COUNT];
    for (unsigned i = 0; i < policy->group_count; i++)
        list[i] = groups[policy->groups[i]];
    return SSL_CTX_set1_groups(ctx, list, (int)policy->group_count) == 1;
}

static bool set_policy(SSL_CTX *ctx, const struct tls_policy *policy)
{
    int min = policy->version_min == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
    int max = policy->version_max == TLS_1_2 ? TLS1_2_VERSION : TLS1_3_VERSION;
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Chains are sent as they were given, not completed from the authorities. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(ctx, 0);
    SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH_MAX);
    return SSL_CTX_set_min_proto_version(ctx, min) == 1 &&
           SSL_CTX_set_max_proto_version(ctx, max) == 1 && set_ciphers(ctx, policy) &&
           set_groups(ctx, policy) && SSL_CTX_set1_sigalgs_list(ctx, signatures) == 1;
}

/* --- Authorities ------------------------------------------------------------------------------ */

/* Those given are trusted alone, and each of them: also an intermediate without its root. */
static bool trust(SSL_CTX *ctx, STACK_OF(X509) * authorities)
{
    X509_STORE *store = X509_STORE_new();
    if (!store)
        return false;
    SSL_CTX_set_cert_store(ctx, store);
    for (int i = 0; i < sk_X509_num(authorities); i++)
        if (X509_STORE_add_cert(store, sk_X509_value(authorities, i)) != 1)
            return false;
    return X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1;
}

static bool name_authorities(SSL_CTX *ctx, STACK_OF(X509) * authorities)
{
    for (int i = 0; i < sk_X509_num(authorities); i++)
        if (SSL_CTX_add1_to_CA_list(ctx, sk_X509_value(authorities, i)) != 1)
            return false;
    return true;
}

static bool trust_system(SSL_CTX *ctx)
{
    return SSL_CTX_set_default_verify_paths(ctx) == 1;
}

/* Sessions are resumed only by servers that trust the same clients. */
static bool set_session_scope(SSL_CTX *ctx, const struct tls_server_config *config)
{
    unsigned char scope[EVP_MAX_MD_SIZE] = {0};
    unsigned char mode = (unsigned char)config->client_auth;
    unsigned len = 0;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool done = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, &mode, sizeof(mode)) == 1;
    if (done && mode != TLS_CLIENT_NONE)
        done = EVP_DigestUpdate(digest, config->client_authorities.ptr,
                                config->client_authorities.len) == 1;
    done = done && EVP_DigestFinal_ex(digest, scope, &len) == 1;
    EVP_MD_CTX_free(digest);
    return done && SSL_CTX_set_session_id_context(ctx, scope, len) == 1;
}

static int failed(char **error)
{
    if (*error)
        ERR_clear_error();
    else
        tls_explain(error, "OpenSSL: %s", openssl_reason());
    return -EINVAL;
}

static int set_client_auth(SSL_CTX *ctx, const struct tls_server_config *config, char **error)
{
    int mode = SSL_VERIFY_PEER;
    if (config->client_auth == TLS_CLIENT_NONE)
        return 0;
    if (config->client_auth == TLS_CLIENT_REQUIRED)
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    STACK_OF(X509) *authorities =
        openssl_read_certificates(config->client_authorities, "the client authorities", error);
    bool done = authorities && trust(ctx, authorities) && name_authorities(ctx, authorities);
    sk_X509_pop_free(authorities, X509_free);
    SSL_CTX_set_verify(ctx, mode, NULL);
    return done ? 0 : failed(error);
}

static int set_server_auth(SSL_CTX *ctx, const struct tls_client_config *config, char **error)
{
    if (config->insecure)
        return 0;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (!config->authorities.len)
        return trust_system(ctx) ? 0 : failed(error);
    STACK_OF(X509) *authorities =
        openssl_read_certificates(config->authorities, "the authorities", error);
    bool done = authorities && trust(ctx, authorities);
    sk_X509_pop_free(authorities, X509_free);
    return done ? 0 : failed(error);
}

/* --- Clients ---------------------------------------------------------------------------------- */

/* Of TLS 1.3 tickets come when they like, even behind the first data. */
static int remember(SSL *ssl, SSL_SESSION *remembered)
{
    enum { NOT_KEPT = 0 };
    struct tls_session *session = openssl_session_of(ssl);
    unsigned char *bytes = NULL;
    if (!session->memory || !SSL_SESSION_is_resumable(remembered))
        return NOT_KEPT;
    int len = i2d_SSL_SESSION(remembered, &bytes);
    if (len > 0)
        tls_remember(session, bytes, (size_t)len);
    OPENSSL_free(bytes);
    return NOT_KEPT;
}

static bool offer_alpn(SSL_CTX *ctx, const char *const *alpn)
{
    unsigned char *wire = NULL;
    size_t len = 0;
    for (; alpn && *alpn; alpn++) {
        size_t name_len = strlen(*alpn);
        unsigned char *grown = realloc(wire, len + 1 + name_len);
        if (!grown)
            break;
        wire = grown;
        wire[len] = (unsigned char)name_len;
        memcpy(wire + len + 1, *alpn, name_len);
        len += 1 + name_len;
    }
    bool done = (!alpn || !*alpn) && (!len || SSL_CTX_set_alpn_protos(ctx, wire, len) == 0);
    free(wire);
    return done;
}

static bool show_certificate(SSL_CTX *ctx, const struct tls_certificate *certificate)
{
    if (!certificate)
        return true;
    const struct openssl_certificate *loaded = certificate->loaded;
    return SSL_CTX_use_cert_and_key(ctx, loaded->leaf, loaded->key, loaded->intermediates, 1) == 1;
}

/* --- Making and freeing ----------------------------------------------------------------------- */

static struct openssl_context *context_create(const SSL_METHOD *method)
{
    struct openssl_context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    context->ctx = SSL_CTX_new(method);
    if (context->ctx)
        return context;
    free(context);
    return NULL;
}

void openssl_context_destroy(void *context)
{
    struct openssl_context *own = context;
    SSL_CTX_free(own->ctx);
    OPENSSL_cleanse(own, sizeof(*own));
    free(own);
}

int openssl_server_create(struct tls_server *server, char **error)
{
    const struct tls_server_config *config = &server->config;
    struct openssl_context *context = context_create(TLS_server_method());
    if (!context)
        return failed(error);
    if (set_client_auth(context->ctx, config, error) < 0 ||
        !set_policy(context->ctx, &config->policy) || !set_session_scope(context->ctx, config)) {
        openssl_context_destroy(context);
        return failed(error);
    }
    openssl_hello_install(context->ctx, config);
    openssl_tickets_install(context, config->ticket_secret);
    server->context = context;
    return 0;
}

int openssl_client_create(struct tls_client *client, char **error)
{
    const struct tls_client_config *config = &client->config;
    struct openssl_context *context = context_create(TLS_client_method());
    if (!context)
        return failed(error);
    if (set_server_auth(context->ctx, config, error) < 0 ||
        !set_policy(context->ctx, &config->policy) ||
        !offer_alpn(context->ctx, config->policy.alpn) ||
        !show_certificate(context->ctx, config->certificate)) {
        openssl_context_destroy(context);
        return failed(error);
    }
    SSL_CTX_set_session_cache_mode(context->ctx,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context->ctx, remember);
    client->context = context;
    return 0;
}
