/*
 * How servers of OpenSSL answer a client's hello: by its name they choose certificates, which are
 * put on the session alone; then the protocol of ALPN and the response of OCSP that goes with the
 * certificate in use.
 */
#include "tls/openssl_internal.h"

#include <openssl/err.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- Parts of the hello ----------------------------------------------------------------------- */

/* Takes a vector behind its length (of 1 or 2 bytes) off the front. */
static bool take_vector(struct slice *from, unsigned length_bytes, struct slice *vector)
{
    const unsigned char *bytes = (const unsigned char *)from->ptr;
    if (from->len < length_bytes)
        return false;
    size_t len = length_bytes == 1 ? bytes[0] : (size_t)bytes[0] << 8 | bytes[1];
    if (from->len - length_bytes < len)
        return false;
    *vector = slice_of(from->ptr + length_bytes, len);
    *from = slice_of(vector->ptr + len, from->len - length_bytes - len);
    return true;
}

/* Does the hello have the extension? Its vector is what the whole extension consists of; one that
 * does not is malformed. */
static bool find_extension(SSL *ssl, unsigned type, struct slice *vector, bool *malformed)
{
    const unsigned char *bytes;
    size_t len;
    if (SSL_client_hello_get0_ext(ssl, type, &bytes, &len) != 1)
        return false;
    struct slice rest = slice_of((const char *)bytes, len);
    if (take_vector(&rest, 2, vector) && rest.len == 0 && vector->len)
        return true;
    *malformed = true;
    return false;
}

/* A list of one host name (RFC 6066, 3): no other kind was ever defined. */
static bool read_name(SSL *ssl, struct slice *name)
{
    enum { HOST_NAME = 0 };
    struct slice list;
    bool malformed = false;
    *name = slice_of(NULL, 0);
    if (!find_extension(ssl, TLSEXT_TYPE_server_name, &list, &malformed))
        return !malformed;
    if (list.ptr[0] != HOST_NAME)
        return false;
    list = slice_of(list.ptr + 1, list.len - 1);
    if (!take_vector(&list, 2, name) || list.len)
        return false;
    *name = tls_name_bare(*name);
    return true;
}

static bool read_alpn(SSL *ssl, struct slice *alpn)
{
    bool malformed = false;
    *alpn = slice_of(NULL, 0);
    if (!find_extension(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, alpn, &malformed))
        return !malformed;
    for (struct slice rest = *alpn, protocol; rest.len;)
        if (!take_vector(&rest, 1, &protocol) || !protocol.len)
            return false;
    return true;
}

/* --- Certificates ----------------------------------------------------------------------------- */

static bool use(struct tls_session *session, const struct tls_certificate *certificate)
{
    struct openssl_session *own = session->library;
    const struct openssl_certificate *loaded = certificate->loaded;
    if (SSL_use_cert_and_key(own->ssl, loaded->leaf, loaded->key, loaded->intermediates, 1) == 1)
        return true;
    tls_fail(session, "the certificate cannot be used: %s", openssl_reason());
    return false;
}

/* The name stays for the session's description, and so that a second hello names no other. */
static bool keep_name(struct openssl_session *own, struct slice name)
{
    own->name = strndup(name.len ? name.ptr : "", name.len);
    for (char *c = own->name; c && *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return own->name != NULL;
}

static bool is_chosen(const struct openssl_session *own)
{
    for (unsigned kind = 0; kind < TLS_KEY_KINDS; kind++)
        if (own->chosen[kind])
            return true;
    return false;
}

static int refuse(int *alert, int with)
{
    *alert = with;
    return SSL_CLIENT_HELLO_ERROR;
}

static int refuse_without_memory(struct tls_session *session, int *alert)
{
    session->output.failed = true;
    return refuse(alert, SSL_AD_INTERNAL_ERROR);
}

static int choose(struct tls_session *session, struct slice name, struct slice alpn, int *alert)
{
    struct openssl_session *own = session->library;
    struct tls_certificate *chosen[TLS_KEY_KINDS];
    int result = tls_hello_answer(session, name.ptr, name.len, alpn, chosen);
    if (result == -EAGAIN)
        return SSL_CLIENT_HELLO_RETRY;
    if (result == -ENOENT)
        return refuse(alert, SSL_AD_UNRECOGNIZED_NAME);
    if (result < 0 || (!own->name && !keep_name(own, name)))
        return refuse_without_memory(session, alert);
    for (unsigned kind = 0; kind < TLS_KEY_KINDS; kind++)
        if (chosen[kind] && !use(session, chosen[kind]))
            return refuse(alert, SSL_AD_INTERNAL_ERROR);
    memcpy(own->chosen, chosen, sizeof(own->chosen));
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* Called once more behind each RETRY, and for a second hello (after a HelloRetryRequest). */
static int answer_hello(SSL *ssl, int *alert, void *unused)
{
    (void)unused;
    struct tls_session *session = openssl_session_of(ssl);
    struct openssl_session *own = session->library;
    struct slice name;
    struct slice alpn;
    if (!read_name(ssl, &name) || !read_alpn(ssl, &alpn)) {
        tls_fail(session, "the client's hello is malformed");
        return refuse(alert, SSL_AD_DECODE_ERROR);
    }
    if (!is_chosen(own))
        return choose(session, name, alpn, alert);
    if (slice_equal_nocase(slice_from_cstr(own->name), name))
        return SSL_CLIENT_HELLO_SUCCESS;
    tls_fail(session, "the client's second hello names another server");
    return refuse(alert, SSL_AD_ILLEGAL_PARAMETER);
}

/* Tells the client that its name was used, and the library to remember it. */
static int acknowledge_name(SSL *ssl, int *alert, void *unused)
{
    (void)alert;
    (void)unused;
    const struct openssl_session *own = openssl_session_of(ssl)->library;
    return own->name && own->name[0] ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* --- Other extensions ------------------------------------------------------------------------- */

/* The server's most wanted; a client whose protocols are all unknown is refused (RFC 7301, 3.2). */
static int choose_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_len,
                       const unsigned char *offered, unsigned offered_len, void *unused)
{
    (void)unused;
    struct tls_session *session = openssl_session_of(ssl);
    for (const char *const *ours = session->server->config.policy.alpn; *ours; ours++) {
        struct slice rest = slice_of((const char *)offered, offered_len);
        struct slice theirs;
        while (take_vector(&rest, 1, &theirs)) {
            if (!slice_equal(theirs, slice_from_cstr(*ours)))
                continue;
            *chosen = (const unsigned char *)theirs.ptr;
            *chosen_len = (unsigned char)theirs.len;
            return SSL_TLSEXT_ERR_OK;
        }
    }
    tls_fail(session, "the client speaks no protocol that is served here");
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static const struct openssl_certificate *in_use(SSL *ssl)
{
    const struct openssl_session *own = openssl_session_of(ssl)->library;
    const X509 *leaf = SSL_get_certificate(ssl);
    for (unsigned kind = 0; kind < TLS_KEY_KINDS; kind++) {
        const struct openssl_certificate *loaded =
            own->chosen[kind] ? own->chosen[kind]->loaded : NULL;
        if (loaded && loaded->leaf == leaf)
            return loaded;
    }
    return NULL;
}

/* A response that has run out is worse than none. */
static int staple(SSL *ssl, void *unused)
{
    (void)unused;
    const struct openssl_certificate *loaded = in_use(ssl);
    if (!loaded || !loaded->ocsp || (loaded->ocsp_end && loaded->ocsp_end < time(NULL)))
        return SSL_TLSEXT_ERR_NOACK;
    unsigned char *copy = OPENSSL_memdup(loaded->ocsp, loaded->ocsp_len);
    if (!copy)
        return SSL_TLSEXT_ERR_NOACK;
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)loaded->ocsp_len);
    return SSL_TLSEXT_ERR_OK;
}

void openssl_hello_install(SSL_CTX *ctx, const struct tls_server_config *config)
{
    SSL_CTX_set_client_hello_cb(ctx, answer_hello, NULL);
    SSL_CTX_set_tlsext_servername_callback(ctx, acknowledge_name);
    SSL_CTX_set_tlsext_status_cb(ctx, staple);
    if (config->policy.alpn && config->policy.alpn[0])
        SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
}
