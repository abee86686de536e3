/*
 * What a GnuTLS session does with the peer's wishes and certificates: reads a client's hello before
 * the library does, picks the certificate that is shown, verifies the one that is seen.
 *
 * The library picks a certificate while it parses the hello, which cannot be put off until an
 * answer is known. So a hook takes the message away from it: the parse ends with GNUTLS_E_AGAIN and
 * leaves no trace, and when the answer is there the library is given the same message again.
 *
 *   hook ──answer──▶ parse ──▶ ...            hook ──no answer yet──▶ replay filled, AGAIN
 *    ▲                                                                      │
 *    └───────────────────── pull gives the replay ◀── tls_answer_hello ─────┘
 */
#include "tls/gnutls_internal.h"

#include <gnutls/x509.h>

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_ALPN = 16,
    RECORD_HANDSHAKE = 22,
    RECORD_HEADER_BYTES = 5,
    MESSAGE_CLIENT_HELLO = 1,
    MESSAGE_HEADER_BYTES = 4,
    HELLO_SESSION_ID_AT = 34, /* behind version and random */
};

struct hello {
    struct slice name;
    struct slice alpn;
};

static unsigned read_16(const unsigned char *bytes)
{
    return ((unsigned)bytes[0] << 8) | bytes[1];
}

/* The first name of a list, which has one in practice (RFC 6066, 3). */
static int read_name(struct hello *hello, const unsigned char *bytes, unsigned size)
{
    enum { LIST_HEADER = 2, NAME_HEADER = 3, TYPE_HOST_NAME = 0 };
    if (size < LIST_HEADER + NAME_HEADER || read_16(bytes) != size - LIST_HEADER)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    unsigned len = read_16(bytes + LIST_HEADER + 1);
    if (len == 0 || len > size - LIST_HEADER - NAME_HEADER)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    if (bytes[LIST_HEADER] == TYPE_HOST_NAME)
        hello->name = slice_of((const char *)bytes + LIST_HEADER + NAME_HEADER, len);
    return 0;
}

static int read_alpn(struct hello *hello, const unsigned char *bytes, unsigned size)
{
    if (size < 2 || read_16(bytes) != size - 2)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    for (unsigned at = 2; at < size; at += 1U + bytes[at])
        if (bytes[at] == 0 || bytes[at] >= size - at)
            return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    hello->alpn = slice_of((const char *)bytes + 2, size - 2);
    return 0;
}

static int read_extension(void *owner, unsigned id, const unsigned char *bytes, unsigned size)
{
    if (id == EXTENSION_SERVER_NAME)
        return read_name(owner, bytes, size);
    if (id == EXTENSION_ALPN)
        return read_alpn(owner, bytes, size);
    return 0;
}

static bool is_for_ecdsa(const struct tls_policy *policy, unsigned suite)
{
    static const unsigned suites[TLS_CIPHER_COUNT] = {
        [TLS_AES128_GCM] = 0xc02b,
        [TLS_AES256_GCM] = 0xc02c,
        [TLS_CHACHA20_POLY1305] = 0xcca9,
    };
    for (unsigned i = 0; i < policy->cipher_count; i++)
        if (suites[policy->ciphers[i]] == suite)
            return true;
    return false;
}

/* The message is one whose lengths were checked, by gnutls_ext_raw_parse. */
static bool offers_ecdsa(const struct tls_policy *policy, const gnutls_datum_t *message)
{
    const unsigned char *suites = message->data + HELLO_SESSION_ID_AT;
    suites += 1 + suites[0];
    unsigned size = read_16(suites);
    for (unsigned at = 0; at + 1 < size; at += 2)
        if (is_for_ecdsa(policy, read_16(suites + 2 + at)))
            return true;
    return false;
}

/* Records of the message, as the client may have sent them. */
static int keep_for_replay(struct tls_gnutls_state *state, const gnutls_datum_t *message)
{
    size_t left = MESSAGE_HEADER_BYTES + message->size;
    size_t records = (left + TLS_RECORD_MAX_BYTES - 1) / TLS_RECORD_MAX_BYTES;
    uint8_t *to = malloc(left + records * RECORD_HEADER_BYTES);
    if (!to)
        return GNUTLS_E_MEMORY_ERROR;
    const uint8_t *from = message->data;
    const uint8_t header[MESSAGE_HEADER_BYTES] = {
        MESSAGE_CLIENT_HELLO, (uint8_t)(message->size >> 16), (uint8_t)(message->size >> 8),
        (uint8_t)message->size};
    state->replay = to;
    state->replay_len = left + records * RECORD_HEADER_BYTES;
    state->replay_at = 0;
    for (size_t skip = MESSAGE_HEADER_BYTES; left; skip = 0) {
        size_t size = left < TLS_RECORD_MAX_BYTES ? left : TLS_RECORD_MAX_BYTES;
        *to++ = RECORD_HANDSHAKE;
        *to++ = 3;
        *to++ = 3;
        *to++ = (uint8_t)(size >> 8);
        *to++ = (uint8_t)size;
        memcpy(to, header, skip);
        memcpy(to + skip, from, size - skip);
        from += size - skip;
        to += size;
        left -= size;
    }
    return GNUTLS_E_AGAIN;
}

/* The name as the site is told it. */
static int keep_name(struct tls_gnutls_state *state, struct slice name)
{
    if (!name.len)
        return 0;
    state->name = strndup(name.ptr, name.len);
    for (char *at = state->name; at && *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return state->name ? 0 : GNUTLS_E_MEMORY_ERROR;
}

int tls_gnutls_on_hello(gnutls_session_t library, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *message)
{
    struct tls_session *session = gnutls_session_get_ptr(library);
    struct tls_gnutls_state *state = session->library;
    struct hello hello = {0};
    (void)type;
    (void)when;
    (void)incoming;
    if (state->hello_done) /* this is the second, after a HelloRetryRequest, or a renegotiation */
        return 0;
    int code =
        gnutls_ext_raw_parse(&hello, read_extension, message, GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO);
    if (code < 0 && code != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) /* that is: no extensions */
        return code;
    switch (tls_hello_answer(session, hello.name.ptr, hello.name.len, hello.alpn, state->chosen)) {
    case 0:
        break;
    case -EAGAIN:
        return keep_for_replay(state, message);
    case -ENOENT:
        return GNUTLS_E_UNRECOGNIZED_NAME;
    default:
        return GNUTLS_E_MEMORY_ERROR;
    }
    state->hello_done = true;
    state->offers_ecdsa = offers_ecdsa(&session->server->config.policy, message);
    return keep_name(state, hello.name);
}

/* --- The certificate to show ------------------------------------------------------------------ */

static bool client_verifies(const struct tls_gnutls_state *state,
                            const struct tls_certificate *certificate)
{
    const struct tls_gnutls_loaded *loaded = certificate->loaded;
    bool newest = gnutls_protocol_get_version(state->session) == GNUTLS_TLS1_3;
    gnutls_sign_algorithm_t sign;
    if (!newest && certificate->kind == TLS_KEY_ECDSA && !state->offers_ecdsa)
        return false;
    for (size_t i = 0; gnutls_sign_algorithm_get_requested(state->session, i, &sign) == 0; i++) {
        if (newest && loaded->sign != GNUTLS_SIGN_UNKNOWN && loaded->sign != sign)
            continue;
        if (gnutls_sign_supports_pk_algorithm(sign, loaded->algorithm))
            return true;
    }
    return false;
}

static const struct tls_certificate *pick_server(const struct tls_gnutls_state *state)
{
    const struct tls_certificate *last = NULL;
    for (unsigned kind = 0; kind < TLS_KEY_KINDS; kind++) {
        if (!state->chosen[kind])
            continue;
        last = state->chosen[kind];
        if (client_verifies(state, last))
            return last;
    }
    return last; /* the library finds out what does not fit */
}

/* A certificate that the server cannot verify is not shown, as if there were none. */
static const struct tls_certificate *pick_client(const struct tls_session *session,
                                                 const struct gnutls_cert_retr_st *info)
{
    const struct tls_certificate *own = session->client->config.certificate;
    const struct tls_gnutls_loaded *loaded = own ? own->loaded : NULL;
    for (unsigned i = 0; loaded && i < info->pk_algos_length; i++)
        if (info->pk_algos[i] == loaded->algorithm)
            return own;
    return NULL;
}

int tls_gnutls_on_retrieve(gnutls_session_t library, const struct gnutls_cert_retr_st *info,
                           gnutls_pcert_st **chain, unsigned *chain_count,
                           gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count, gnutls_privkey_t *key,
                           unsigned *flags)
{
    const struct tls_session *session = gnutls_session_get_ptr(library);
    const struct tls_certificate *picked =
        session->server ? pick_server(session->library) : pick_client(session, info);
    struct tls_gnutls_loaded *loaded = picked ? picked->loaded : NULL;
    *chain_count = *ocsp_count = *flags = 0;
    if (!loaded)
        return 0;
    *chain = loaded->chain;
    *chain_count = loaded->chain_count;
    *key = loaded->key;
    if (loaded->ocsp.response.size && session->server) {
        *ocsp = &loaded->ocsp;
        *ocsp_count = 1;
    }
    return 0;
}

/* --- The certificate that is seen ------------------------------------------------------------- */

/* The first of these that holds is the reason; the words are those that X.509 verifiers share. */
static const struct {
    unsigned status;
    int alert;
    const char *reason;
} refusals[] = {
    {GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED, "certificate revoked"},
    {GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA, "unable to get local issuer certificate"},
    {GNUTLS_CERT_SIGNER_NOT_CA, GNUTLS_A_UNKNOWN_CA, "invalid CA certificate"},
    {GNUTLS_CERT_SIGNATURE_FAILURE, GNUTLS_A_DECRYPT_ERROR, "certificate signature failure"},
    {GNUTLS_CERT_NOT_ACTIVATED, GNUTLS_A_BAD_CERTIFICATE, "certificate is not yet valid"},
    {GNUTLS_CERT_EXPIRED, GNUTLS_A_CERTIFICATE_EXPIRED, "certificate has expired"},
    {GNUTLS_CERT_PURPOSE_MISMATCH, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
     "unsuitable certificate purpose"},
    {GNUTLS_CERT_INSECURE_ALGORITHM, GNUTLS_A_BAD_CERTIFICATE, "insecure algorithm or key"},
    {GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE, GNUTLS_A_BAD_CERTIFICATE,
     "permitted subtree violation"},
    {GNUTLS_CERT_UNEXPECTED_OWNER, GNUTLS_A_BAD_CERTIFICATE, NULL},
};

static const char *owner_mismatch(const struct tls_gnutls_state *state)
{
    return tls_is_address(state->name) ? "IP address mismatch" : "hostname mismatch";
}

static int refuse(struct tls_session *session, unsigned status)
{
    struct tls_gnutls_state *state = session->library;
    state->alert = GNUTLS_A_BAD_CERTIFICATE;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        if (!(status & refusals[i].status))
            continue;
        const char *reason = refusals[i].reason;
        state->alert = refusals[i].alert;
        tls_fail(session, "certificate verify failed: %s", reason ? reason : owner_mismatch(state));
        return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
    }
    tls_fail(session, "certificate verify failed: unspecified certificate verification error");
    return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

/* What the certificate must be for. Returns the number of elements. */
static unsigned expect(const struct tls_session *session, unsigned char address[],
                       gnutls_typed_vdata_st data[2])
{
    const struct tls_gnutls_state *state = session->library;
    const char *purpose = session->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
    data[0] = (gnutls_typed_vdata_st){
        .type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)purpose, .size = 0};
    if (session->server)
        return 1;
    data[1] = (gnutls_typed_vdata_st){
        .type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)state->name, .size = 0};
    bool v4 = inet_pton(AF_INET, state->name, address) == 1;
    if (v4 || inet_pton(AF_INET6, state->name, address) == 1)
        data[1] = (gnutls_typed_vdata_st){
            .type = GNUTLS_DT_IP_ADDRESS, .data = address, .size = v4 ? 4 : 16};
    return 2;
}

int tls_gnutls_on_verify(gnutls_session_t library)
{
    struct tls_session *session = gnutls_session_get_ptr(library);
    gnutls_typed_vdata_st data[2];
    unsigned char address[sizeof(struct in6_addr)];
    unsigned count = 0;
    unsigned status = 0;
    if (session->server && (!gnutls_certificate_get_peers(library, &count) || !count))
        return 0; /* clients need not have one, or the library has complained already */
    count = expect(session, address, data);
    int code = gnutls_certificate_verify_peers(library, data, count, &status);
    if (code < 0) {
        tls_fail(session, "certificate verify failed: %s", gnutls_strerror(code));
        return GNUTLS_E_CERTIFICATE_ERROR;
    }
    return status ? refuse(session, status) : 0;
}
