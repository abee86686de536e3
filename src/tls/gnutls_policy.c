/*
 * Policies in GnuTLS's words. The library takes a server's order as it stands; where a client's
 * wish goes first, there is another order of the same, made when it is first wanted.
 */
#include "tls/gnutls_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

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

/* Puts a cipher in front of the others, if it is one of them. */
static void prefer_cipher(struct tls_policy *policy, enum tls_cipher cipher)
{
    unsigned at = 0;
    while (at < policy->cipher_count && policy->ciphers[at] != cipher)
        at++;
    if (at == policy->cipher_count)
        return;
    memmove(policy->ciphers + 1, policy->ciphers, at * sizeof(policy->ciphers[0]));
    policy->ciphers[0] = cipher;
}

static void prefer_group(struct tls_policy *policy, enum tls_group group)
{
    unsigned at = 0;
    while (at < policy->group_count && policy->groups[at] != group)
        at++;
    assert(at < policy->group_count);
    memmove(policy->groups + 1, policy->groups, at * sizeof(policy->groups[0]));
    policy->groups[0] = group;
}

gnutls_priority_t tls_gnutls_order(struct tls_gnutls_context *context,
                                   const struct tls_policy *policy, bool chacha_first,
                                   enum tls_group group)
{
    char text[1024];
    gnutls_priority_t *made = &context->orders[chacha_first][group];
    struct tls_policy order = *policy;
    if (*made)
        return *made;
    prefer_group(&order, group);
    if (chacha_first)
        prefer_cipher(&order, TLS_CHACHA20_POLY1305);
    write_priorities(&order, context->is_server, text, sizeof(text));
    if (gnutls_priority_init(made, text, NULL) < 0)
        *made = NULL;
    return *made;
}

void tls_gnutls_orders_free(struct tls_gnutls_context *context)
{
    for (unsigned chacha_first = 0; chacha_first < 2; chacha_first++)
        for (unsigned group = 0; group < TLS_GROUP_COUNT; group++)
            if (context->orders[chacha_first][group])
                gnutls_priority_deinit(context->orders[chacha_first][group]);
}
