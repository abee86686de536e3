/* Contexts of GnuTLS: what a server or client may choose, and whom it trusts. */
#include "tls/gnutls_internal.h"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    context->is_server = server;
    context->order = tls_gnutls_order(context, policy, false, policy->groups[0]);
    if (!context->order) {
        tls_explain(error, "these ciphers and groups cannot be used");
        return -EINVAL;
    }
    int code = gnutls_certificate_allocate_credentials(&context->credentials);
    if (code < 0) {
        context->credentials = NULL;
        return tls_gnutls_refuse(error, code, "no credentials can be made");
    }
    gnutls_certificate_set_retrieve_function3(context->credentials, tls_gnutls_on_retrieve);
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

static int trust_system(struct tls_gnutls_context *context, char **error)
{
    context->system = tls_gnutls_trust_system();
    return context->system ? 0 : tls_gnutls_refuse(error, GNUTLS_E_MEMORY_ERROR, "");
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
        result = trust_system(context, error);
    return finish(context, result, &client->context);
}

void tls_gnutls_context_destroy(void *owned)
{
    struct tls_gnutls_context *context = owned;
    if (context->credentials)
        gnutls_certificate_free_credentials(context->credentials);
    if (context->system)
        tls_gnutls_trust_release(context->system);
    tls_gnutls_orders_free(context);
    gnutls_memset(context->ticket_key, 0, sizeof(context->ticket_key));
    free(context);
}
