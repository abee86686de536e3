/* Contexts of GnuTLS: what a server or client may choose, and whom it trusts. */
#include "tls/gnutls_internal.h"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    /* What one's own certificate is good for is its owner's business. */
    add_word(text, size, "%DEBUG_ALLOW_KEY_USAGE_VIOLATIONS");
    add_word(text, size, server ? "%SERVER_PRECEDENCE" : "%SAFE_RENEGOTIATION");
}

static int set_priorities(gnutls_priority_t *priorities, const struct tls_policy *policy,
                          bool server, char **error)
{
    char text[1024];
    write_priorities(policy, server, text, sizeof(text));
    int code = gnutls_priority_init(priorities, text, NULL);
    if (code >= 0)
        return 0;
    *priorities = NULL;
    return tls_gnutls_refuse(error, code, "these ciphers and groups cannot be used");
}

/* For clients without instructions for AES, who say so by naming it first. */
static bool move_chacha(const struct tls_policy *policy, struct tls_policy *moved)
{
    unsigned at = 0;
    while (at < policy->cipher_count && policy->ciphers[at] != TLS_CHACHA20_POLY1305)
        at++;
    if (at == 0 || at == policy->cipher_count)
        return false;
    *moved = *policy;
    memmove(moved->ciphers + 1, policy->ciphers, at * sizeof(policy->ciphers[0]));
    moved->ciphers[0] = TLS_CHACHA20_POLY1305;
    return true;
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
    struct tls_policy chacha_first;
    int result = set_priorities(&context->priorities, policy, server, error);
    if (result == 0 && server && move_chacha(policy, &chacha_first))
        result = set_priorities(&context->chacha_first, &chacha_first, server, error);
    if (result < 0)
        return result;
    int code = gnutls_certificate_allocate_credentials(&context->credentials);
    if (code < 0) {
        context->credentials = NULL;
        return tls_gnutls_refuse(error, code, "no credentials can be made");
    }
    gnutls_certificate_set_retrieve_function3(context->credentials, tls_gnutls_on_retrieve);
    /* Stapled responses are for browsers: OpenSSL's client does not ask for them. */
    gnutls_certificate_set_verify_flags(context->credentials, GNUTLS_VERIFY_DISABLE_CRL_CHECKS);
    return set_alpn(context, policy, error);
}

/* Those given are trusted alone, and each of them: also an intermediate without its root. */
static int set_authorities(struct tls_gnutls_context *context, struct slice pem, const char *what,
                           char **error)
{
    struct tls_gnutls_list list;
    int result = tls_gnutls_read_certificates(pem, what, &list, error);
    if (result < 0)
        return result;
    int code =
        gnutls_certificate_set_x509_trust(context->credentials, list.certificates, (int)list.count);
    tls_gnutls_list_free(&list);
    return code < 0 ? tls_gnutls_refuse(error, code, "the authorities cannot be used") : 0;
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
        return tls_gnutls_refuse(error, code, "no key for tickets can be made");
    code = gnutls_hmac(hmac, &auth, sizeof(auth));
    if (code >= 0 && config->client_auth != TLS_CLIENT_NONE)
        code = gnutls_hmac(hmac, config->client_authorities.ptr, config->client_authorities.len);
    gnutls_hmac_deinit(hmac, context->ticket_key);
    context->tickets = true;
    return code < 0 ? tls_gnutls_refuse(error, code, "no key for tickets can be made") : 0;
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
        return tls_gnutls_refuse(error, GNUTLS_E_MEMORY_ERROR, "");
    int result = create(context, &config->policy, true, error);
    if (result == 0 && config->client_auth != TLS_CLIENT_NONE)
        result =
            set_authorities(context, config->client_authorities, "the client authorities", error);
    if (result == 0 && config->ticket_secret)
        result = derive_ticket_key(context, config, error);
    return finish(context, result, &server->context);
}

int tls_gnutls_client_create(struct tls_client *client, char **error)
{
    const struct tls_client_config *config = &client->config;
    struct tls_gnutls_context *context = calloc(1, sizeof(*context));
    if (!context)
        return tls_gnutls_refuse(error, GNUTLS_E_MEMORY_ERROR, "");
    int result = create(context, &config->policy, false, error);
    if (result == 0 && config->authorities.len && !config->insecure)
        result = set_authorities(context, config->authorities, "the authorities", error);
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
    if (context->chacha_first)
        gnutls_priority_deinit(context->chacha_first);
    gnutls_memset(context->ticket_key, 0, sizeof(context->ticket_key));
    free(context);
}
