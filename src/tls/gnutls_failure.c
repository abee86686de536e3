/*
 * Why sessions of GnuTLS fail, in the words of OpenSSL, and the alerts that say so to the peer.
 * What the library does not tell is seen in the records that it reads.
 */
#include "tls/gnutls_internal.h"

#include <errno.h>
#include <string.h>

/* --- Records ---------------------------------------------------------------------------------- */

enum { RECORD_ALERT = 21, RECORD_FIRST = 20, RECORD_LAST = 23, HEADER_BYTES = 5, ALERT_BYTES = 2 };

/* Of a peer whose first bytes are no record: what it is. */
static const char *foreign_protocol(const uint8_t *header)
{
    static const char *const methods[] = {"GET ", "POST ", "HEAD ", "PUT "};
    if (header[0] >= RECORD_FIRST && header[0] <= RECORD_LAST && header[1] == 3)
        return NULL;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (memcmp(header, methods[i], strlen(methods[i])) == 0)
            return "http request";
    return "wrong version number";
}

static void watch_header(struct tls_gnutls_watch *watch, uint8_t byte)
{
    if (watch->len == HEADER_BYTES)
        watch->len = 0;
    watch->header[watch->len++] = byte;
    if (watch->len < HEADER_BYTES)
        return;
    if (!watch->any)
        watch->foreign = foreign_protocol(watch->header);
    watch->any = true;
    watch->body_len = watch->body_left = (unsigned)watch->header[3] << 8 | watch->header[4];
}

void tls_gnutls_watch(struct tls_gnutls_state *state, const uint8_t *bytes, size_t size)
{
    struct tls_gnutls_watch *watch = &state->watch;
    for (size_t i = 0; i < size && !state->open; i++) {
        if (!watch->body_left) {
            watch_header(watch, bytes[i]);
            continue;
        }
        watch->last = bytes[i];
        watch->bodies++;
        watch->body_left--;
    }
}

/* Clients that fail before they can encrypt say so in the clear, to a server that expects TLS 1.3's
 * encryption already. */
static bool is_plain_alert(const struct tls_gnutls_state *state, int code)
{
    const struct tls_gnutls_watch *watch = &state->watch;
    return code == GNUTLS_E_DECRYPTION_FAILED && !state->open && !watch->body_left &&
           watch->header[0] == RECORD_ALERT && watch->body_len == ALERT_BYTES;
}

/* --- Reasons ---------------------------------------------------------------------------------- */

static const char *reason_of(int code)
{
    static const struct {
        int code;
        const char *reason;
    } reasons[] = {
        {GNUTLS_E_UNSUPPORTED_VERSION_PACKET, "unsupported protocol"},
        {GNUTLS_E_NO_CIPHER_SUITES, "no shared cipher"},
        {GNUTLS_E_INSUFFICIENT_CREDENTIALS, "no shared cipher"},
        {GNUTLS_E_NO_COMMON_KEY_SHARE, "no suitable key share"},
        {GNUTLS_E_NO_APPLICATION_PROTOCOL, "the client speaks no protocol that is served here"},
        {GNUTLS_E_DECRYPTION_FAILED, "decryption failed or bad record mac"},
        {GNUTLS_E_NO_CERTIFICATE_FOUND, "peer did not return a certificate"},
        {GNUTLS_E_CERTIFICATE_REQUIRED, "peer did not return a certificate"},
        {GNUTLS_E_UNEXPECTED_PACKET, "unexpected message"},
        {GNUTLS_E_UNEXPECTED_HANDSHAKE_PACKET, "unexpected message"},
        {GNUTLS_E_UNEXPECTED_PACKET_LENGTH, "length mismatch"},
        {GNUTLS_E_RECORD_OVERFLOW, "data length too long"},
        {GNUTLS_E_MISSING_EXTENSION, "missing extension"},
        {GNUTLS_E_PK_SIG_VERIFY_FAILED, "bad signature"},
        {GNUTLS_E_ERROR_IN_FINISHED_PACKET, "digest check failed"},
        {GNUTLS_E_INAPPROPRIATE_FALLBACK, "inappropriate fallback"},
        {GNUTLS_E_SAFE_RENEGOTIATION_FAILED, "unsafe legacy renegotiation disabled"},
        {GNUTLS_E_ILLEGAL_PARAMETER, "illegal parameter"},
        {GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER, "illegal parameter"},
        {GNUTLS_E_KEY_USAGE_VIOLATION, "certificate verify failed: unsuitable certificate purpose"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].code == code)
            return reasons[i].reason;
    return NULL;
}

static void explain(struct tls_session *session, int code)
{
    struct tls_gnutls_state *state = session->library;
    const char *reason = reason_of(code);
    const char *text = gnutls_strerror(code);
    size_t len = strlen(text);
    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
        tls_fail(session, "alert from the peer: %s",
                 tls_alert_text((unsigned)gnutls_alert_get(state->session)));
    else if (is_plain_alert(state, code))
        tls_fail(session, "alert from the peer: %s", tls_alert_text(state->watch.last));
    else if (state->watch.foreign)
        tls_fail(session, "%s", state->watch.foreign);
    else if (reason)
        tls_fail(session, "%s", reason);
    else
        tls_fail(session, "%.*s", (int)(len && text[len - 1] == '.' ? len - 1 : len), text);
}

/* What the library thinks is a decoding error, a client without a certificate, has other alerts. */
static int alert_of(const struct tls_gnutls_state *state, int code)
{
    if (state->alert >= 0)
        return state->alert;
    if (code == GNUTLS_E_KEY_USAGE_VIOLATION)
        return GNUTLS_A_UNSUPPORTED_CERTIFICATE;
    if (code == GNUTLS_E_NO_CERTIFICATE_FOUND || code == GNUTLS_E_CERTIFICATE_REQUIRED)
        return gnutls_protocol_get_version(state->session) == GNUTLS_TLS1_3
                   ? GNUTLS_A_CERTIFICATE_REQUIRED
                   : GNUTLS_A_HANDSHAKE_FAILURE;
    return gnutls_error_to_alert(code, NULL);
}

/* The session is lost: says why, to its owner and to the peer. */
int tls_gnutls_fail(struct tls_session *session, int code)
{
    struct tls_gnutls_state *state = session->library;
    if (state->failed)
        return -EPROTO;
    state->failed = true;
    explain(session, code);
    if (code != GNUTLS_E_FATAL_ALERT_RECEIVED && !is_plain_alert(state, code) &&
        !state->watch.foreign)
        gnutls_alert_send(state->session, GNUTLS_AL_FATAL, alert_of(state, code));
    return code == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EPROTO;
}
