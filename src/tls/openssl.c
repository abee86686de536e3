/*
 * OpenSSL's sessions. The library reads received bytes and writes records through a BIO that keeps
 * nothing itself; it gives its own buffers back whenever they are empty. Suspends never.
 */
#include "tls/openssl_internal.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Before a call whose failure is read from the queue of errors. That is empty nearly always, and to
 * ask is cheaper than to clear. */
static void forget_errors(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

/* --- The transport ---------------------------------------------------------------------------- */

static int transport_read(BIO *bio, char *bytes, size_t size, size_t *count)
{
    *count = tls_take(BIO_get_data(bio), bytes, size);
    BIO_clear_retry_flags(bio);
    if (*count)
        return 1;
    BIO_set_retry_read(bio);
    return 0;
}

static int transport_write(BIO *bio, const char *bytes, size_t size, size_t *count)
{
    BIO_clear_retry_flags(bio);
    if (tls_put(BIO_get_data(bio), bytes, size) < 0)
        return 0;
    *count = size;
    return 1;
}

static long transport_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

/* Made once in a process and never freed. */
static BIO_METHOD *transport_method(void)
{
    static BIO_METHOD *method;
    if (method)
        return method;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "session");
    if (method) {
        BIO_meth_set_read_ex(method, transport_read);
        BIO_meth_set_write_ex(method, transport_write);
        BIO_meth_set_ctrl(method, transport_control);
    }
    return method;
}

static BIO *transport_create(struct tls_session *session)
{
    BIO_METHOD *method = transport_method();
    BIO *bio = method ? BIO_new(method) : NULL;
    if (!bio)
        return NULL;
    BIO_set_data(bio, session);
    BIO_set_init(bio, 1);
    return bio;
}

struct tls_session *openssl_session_of(const SSL *ssl)
{
    return BIO_get_data(SSL_get_rbio(ssl));
}

/* --- Beginning and end ------------------------------------------------------------------------ */

static SSL *ssl_of(const struct tls_session *session)
{
    struct openssl_session *own = session->library;
    return own->ssl;
}

static void session_end(struct tls_session *session)
{
    struct openssl_session *own = session->library;
    SSL_free(own->ssl);
    free(own->name);
    free(own);
    session->library = NULL;
}

static int session_begin(struct tls_session *session, SSL_CTX *ctx)
{
    struct openssl_session *own = calloc(1, sizeof(*own));
    if (!own)
        return -ENOMEM;
    session->library = own;
    own->ssl = SSL_new(ctx);
    BIO *bio = own->ssl ? transport_create(session) : NULL;
    if (!bio) {
        session_end(session);
        ERR_clear_error();
        return -ENOMEM;
    }
    SSL_set_bio(own->ssl, bio, bio);
    return 0;
}

static int session_accept(struct tls_session *session)
{
    struct openssl_context *context = session->server->context;
    int result = session_begin(session, context->ctx);
    if (result == 0)
        SSL_set_accept_state(ssl_of(session));
    return result;
}

/* The name that must stand in the server's certificate. */
static bool expect_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *verification = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(verification, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (tls_is_address(name))
        return X509_VERIFY_PARAM_set1_ip_asc(verification, name) == 1;
    return X509_VERIFY_PARAM_set1_host(verification, name, 0) == 1;
}

static bool send_name(struct openssl_session *own, const char *name)
{
    if (tls_is_address(name))
        return true;
    own->name = strdup(name);
    for (char *c = own->name; c && *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return own->name && SSL_set_tlsext_host_name(own->ssl, own->name) == 1;
}

/* What is remembered may be unusable, or come from someone who verified nothing: then the handshake
 * is a full one. */
static void resume(struct tls_session *session)
{
    if (!tls_remembers(session))
        return;
    SSL *ssl = ssl_of(session);
    const unsigned char *bytes = session->memory->bytes;
    SSL_SESSION *remembered = d2i_SSL_SESSION(NULL, &bytes, (long)session->memory->len);
    if (remembered)
        SSL_set_session(ssl, remembered);
    SSL_SESSION_free(remembered);
    if (!session->client->config.insecure && SSL_get_verify_result(ssl) != X509_V_OK)
        SSL_set_session(ssl, NULL);
}

static int session_connect(struct tls_session *session, const char *name)
{
    struct openssl_context *context = session->client->context;
    int result = session_begin(session, context->ctx);
    if (result < 0)
        return result;
    struct openssl_session *own = session->library;
    SSL_set_connect_state(own->ssl);
    if (send_name(own, name) && (session->client->config.insecure || expect_name(own->ssl, name))) {
        resume(session);
    } else {
        session_end(session);
        result = -ENOMEM;
    }
    ERR_clear_error();
    return result;
}

/* --- Failures --------------------------------------------------------------------------------- */

const char *openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    ERR_clear_error();
    return reason ? reason : "unknown cause";
}

/* Reasons above this are alerts that the peer sent. */
static bool is_alert(unsigned long code)
{
    return ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) > SSL_AD_REASON_OFFSET;
}

static int fail(struct tls_session *session)
{
    unsigned long code = ERR_peek_error();
    long verified = SSL_get_verify_result(ssl_of(session));
    if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) {
        ERR_clear_error();
        return -ENOMEM;
    }
    if (is_alert(code))
        tls_fail(session, "alert from the peer: %s",
                 tls_alert_text((unsigned)(ERR_GET_REASON(code) - SSL_AD_REASON_OFFSET)));
    else if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK)
        tls_fail(session, "certificate verify failed: %s", X509_verify_cert_error_string(verified));
    tls_fail(session, "%s", openssl_reason());
    ERR_clear_error();
    return -EPROTO;
}

/* Between two records no buffer is needed; the library keeps one that a ticket made it allocate. In
 * the midst of a record older libraries would free what was read of it (CVE-2024-4741). */
static void release_buffers(SSL *ssl)
{
    if (strcmp(SSL_rstate_string(ssl), "RH") == 0)
        SSL_free_buffers(ssl);
}

/* What a call that did not succeed means to the caller. */
static int outcome(struct tls_session *session)
{
    switch (SSL_get_error(ssl_of(session), -1)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
        return TLS_HELLO;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return fail(session);
    }
}

/* --- Handshake and data ----------------------------------------------------------------------- */

/* Gives back what only the handshake needed. */
static void forget_handshake(struct tls_session *session)
{
    struct openssl_session *own = session->library;
    memset(own->chosen, 0, sizeof(own->chosen));
    if (session->server)
        SSL_set_tlsext_status_ocsp_resp(own->ssl, NULL, 0);
}

static int session_handshake(struct tls_session *session)
{
    if (session->error)
        return -EPROTO;
    forget_errors();
    if (SSL_do_handshake(ssl_of(session)) != 1) {
        int result = outcome(session);
        return result == 0 ? -EPROTO : result;
    }
    forget_handshake(session);
    return 0;
}

/* Nothing is there to be decrypted. To ask the library nevertheless costs the allocation of its
 * buffer and a way through its states: about 1 us. */
static bool has_nothing(const struct tls_session *session)
{
    const SSL *ssl = ssl_of(session);
    return !session->input.len && !SSL_has_pending(ssl) &&
           !(SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN);
}

static ssize_t session_read(struct tls_session *session, void *bytes, size_t size)
{
    size_t count;
    if (session->error)
        return -EPROTO;
    if (has_nothing(session))
        return -EAGAIN;
    forget_errors();
    if (SSL_read_ex(ssl_of(session), bytes, size, &count) == 1)
        return (ssize_t)count;
    ssize_t result = outcome(session);
    if (result == -EAGAIN)
        release_buffers(ssl_of(session));
    return result;
}

static int session_write(struct tls_session *session, const void *bytes, size_t size, size_t record)
{
    const char *next = bytes;
    if (session->error)
        return -EPROTO;
    forget_errors();
    while (size) {
        size_t part = size < record ? size : record;
        size_t count;
        if (SSL_write_ex(ssl_of(session), next, part, &count) != 1)
            return fail(session);
        next += count;
        size -= count;
    }
    return 0;
}

/* Once only: a second shutdown would wait for the peer's. */
static void session_close(struct tls_session *session)
{
    SSL *ssl = ssl_of(session);
    if (session->error || SSL_in_init(ssl) || (SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        return;
    ERR_clear_error();
    SSL_shutdown(ssl);
    ERR_clear_error();
}

static const char *version(void)
{
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}

const struct tls_backend tls_openssl = {
    .name = "openssl",
    .version = version,
    .certificate_load = openssl_certificate_load,
    .certificate_free = openssl_certificate_free,
    .server_create = openssl_server_create,
    .server_destroy = openssl_context_destroy,
    .client_create = openssl_client_create,
    .client_destroy = openssl_context_destroy,
    .accept = session_accept,
    .connect = session_connect,
    .handshake = session_handshake,
    .read = session_read,
    .write = session_write,
    .close = session_close,
    .describe = openssl_describe,
    .describe_peer = openssl_describe_peer,
    .end = session_end,
};
