/* Which certificate a session of GnuTLS shows, and whether it believes the one that it sees. */
#include "tls/gnutls_internal.h"

#include <arpa/inet.h>

/* --- Showing ---------------------------------------------------------------------------------- */

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

/* --- Verifying -------------------------------------------------------------------------------- */

/* The first of these that holds is the reason; the words are those that X.509 verifiers share. */
static const struct {
    unsigned status;
    int alert;
    const char *reason;
} refusals[] = {
    {GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED, "certificate revoked"},
    {GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA, NULL},
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

/* Does the chain end with its own authority, which is not trusted? */
static const char *untrusted(const struct tls_gnutls_state *state)
{
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(state->session, &count);
    gnutls_x509_crt_t last;
    bool signs_itself = false;
    if (chain && count && gnutls_x509_crt_init(&last) == 0) {
        signs_itself = gnutls_x509_crt_import(last, &chain[count - 1], GNUTLS_X509_FMT_DER) == 0 &&
                       gnutls_x509_crt_check_issuer(last, last);
        gnutls_x509_crt_deinit(last);
    }
    if (!signs_itself)
        return "unable to get local issuer certificate";
    return count == 1 ? "self-signed certificate" : "self-signed certificate in certificate chain";
}

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
        if (!reason)
            reason =
                refusals[i].alert == GNUTLS_A_UNKNOWN_CA ? untrusted(state) : owner_mismatch(state);
        state->alert = refusals[i].alert;
        tls_fail(session, "certificate verify failed: %s", reason);
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
    const struct tls_gnutls_context *context =
        session->server ? session->server->context : session->client->context;
    gnutls_x509_trust_list_t list;
    if (context->system)
        list = tls_gnutls_trust_list(context->system);
    else
        gnutls_certificate_get_trust_list(context->credentials, &list);
    int code = tls_gnutls_trust_verify(list, library, data, count, &status);
    if (code < 0) {
        tls_fail(session, "certificate verify failed: %s", gnutls_strerror(code));
        return GNUTLS_E_CERTIFICATE_ERROR;
    }
    return status ? refuse(session, status) : 0;
}
