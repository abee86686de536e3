/*
 * Session tickets of OpenSSL servers. Their keys are derived from the secret that all workers share
 * and from the time: those of the present period of 12 hours encrypt, those of the period before
 * it still decrypt.
 */
#include "tls/openssl_internal.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    PERIOD_S = 12 * 3600,
    /* Tickets for tickets: this long after the full handshake there must be another one. */
    RESUMABLE_S = 24 * 3600,
};

static bool derive_part(const uint8_t *secret, uint64_t period, uint8_t part, uint8_t out[64])
{
    static const char label[] = "monolake-lua ticket openssl";
    unsigned char text[sizeof(label) + sizeof(period) + 1];
    unsigned len;
    memcpy(text, label, sizeof(label));
    for (unsigned i = 0; i < sizeof(period); i++)
        text[sizeof(label) + i] = (unsigned char)(period >> (8 * i));
    text[sizeof(text) - 1] = part;
    return HMAC(EVP_sha512(), secret, TLS_TICKET_SECRET_BYTES, text, sizeof(text), out, &len);
}

static bool derive(const uint8_t *secret, uint64_t period, struct openssl_ticket_key *key)
{
    uint8_t bytes[64];
    key->period = 0;
    if (!derive_part(secret, period, 1, bytes))
        return false;
    memcpy(key->name, bytes, sizeof(key->name));
    if (!derive_part(secret, period, 2, bytes))
        return false;
    memcpy(key->cipher, bytes, sizeof(key->cipher));
    memcpy(key->mac, bytes + sizeof(key->cipher), sizeof(key->mac));
    OPENSSL_cleanse(bytes, sizeof(bytes));
    key->period = period;
    return true;
}

/* Of two neighbouring periods each has its own place. */
static struct openssl_ticket_key *key_of(struct openssl_context *context, uint64_t period)
{
    struct openssl_ticket_key *key = &context->ticket_keys[period % 2];
    if (key->period == period || derive(context->ticket_secret, period, key))
        return key;
    return NULL;
}

static bool set_mac(EVP_MAC_CTX *mac, struct openssl_ticket_key *key)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof(key->mac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

static int encrypt(struct openssl_ticket_key *key, unsigned char *name, unsigned char *iv,
                   EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1 ||
        EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv) != 1 ||
        !set_mac(mac, key))
        return -1;
    memcpy(name, key->name, sizeof(key->name));
    return 1;
}

enum { UNKNOWN = 0, GOOD = 1, GOOD_BUT_RENEW = 2 };

static int handle_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                         EVP_MAC_CTX *mac, int encrypts)
{
    struct openssl_context *context = openssl_session_of(ssl)->server->context;
    uint64_t period = (uint64_t)time(NULL) / PERIOD_S;
    struct openssl_ticket_key *key = key_of(context, period);
    if (!key)
        return -1;
    if (encrypts)
        return encrypt(key, name, iv, cipher, mac);
    if (memcmp(name, key->name, sizeof(key->name)) != 0)
        key = key_of(context, period - 1);
    if (!key)
        return -1;
    if (memcmp(name, key->name, sizeof(key->name)) != 0)
        return UNKNOWN;
    if (EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv) != 1 ||
        !set_mac(mac, key))
        return -1;
    /* Tickets of TLS 1.3 should be used once only (RFC 8446, C.4), so there is always a new one. */
    return key->period == period && SSL_version(ssl) < TLS1_3_VERSION ? GOOD : GOOD_BUT_RENEW;
}

/* Puts the time of the full handshake into the ticket, which tickets for tickets carry on. */
static int stamp(SSL *ssl, void *unused)
{
    (void)unused;
    SSL_SESSION *session = SSL_get_session(ssl);
    int64_t now = (int64_t)time(NULL);
    void *before;
    size_t len;
    if (SSL_SESSION_get0_ticket_appdata(session, &before, &len) == 1 && len == sizeof(now))
        return 1;
    return SSL_SESSION_set1_ticket_appdata(session, &now, sizeof(now));
}

static bool is_recent(SSL_SESSION *session)
{
    void *stamped;
    size_t len;
    int64_t begun;
    if (SSL_SESSION_get0_ticket_appdata(session, &stamped, &len) != 1 || len != sizeof(begun))
        return false;
    memcpy(&begun, stamped, sizeof(begun));
    int64_t age = (int64_t)time(NULL) - begun;
    return age >= 0 && age <= RESUMABLE_S;
}

/* TLS 1.2 must not resume under another name (RFC 6066, 3); nor does 1.3, where the name would have
 * to be one of the certificate that was shown (RFC 8446, 4.6.1), which the ticket does not tell. */
static bool same_name(SSL *ssl, SSL_SESSION *session)
{
    struct openssl_session *own = openssl_session_of(ssl)->library;
    const char *before = SSL_SESSION_get0_hostname(session);
    return strcasecmp(before ? before : "", own->name ? own->name : "") == 0;
}

static SSL_TICKET_RETURN judge(SSL *ssl, SSL_SESSION *session, const unsigned char *key_name,
                               size_t key_name_len, SSL_TICKET_STATUS status, void *unused)
{
    (void)key_name;
    (void)key_name_len;
    (void)unused;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (!is_recent(session) || !same_name(ssl, session))
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

void openssl_tickets_install(struct openssl_context *context, const uint8_t *secret)
{
    SSL_CTX *ctx = context->ctx;
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    if (!secret) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(ctx, 0);
        return;
    }
    memcpy(context->ticket_secret, secret, sizeof(context->ticket_secret));
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_timeout(ctx, PERIOD_S);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, handle_ticket);
    SSL_CTX_set_session_ticket_cb(ctx, stamp, judge, NULL);
}
