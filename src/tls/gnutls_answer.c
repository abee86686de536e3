/*
 * How servers of GnuTLS answer a client's hello.
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

#include <gnutls/crypto.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECORD_HANDSHAKE = 22,
    RECORD_HEADER_BYTES = 5,
    MESSAGE_CLIENT_HELLO = 1,
    MESSAGE_HEADER_BYTES = 4,
};

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

/* The name stays for the session's description, and so that a second hello names no other. */
static int keep_name(struct tls_gnutls_state *state, struct slice name)
{
    if (!name.len)
        return 0;
    state->name = strndup(name.ptr, name.len);
    for (char *at = state->name; at && *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return state->name ? 0 : GNUTLS_E_MEMORY_ERROR;
}

/* TLS 1.2 must not resume under another name (RFC 6066, 3), and the library fails when it speaks
 * TLS 1.3 with whom it has given a ticket of 1.2: each name and version has a ticket key of its
 * own. */
static int enable_tickets(struct tls_gnutls_state *state, const struct tls_gnutls_context *context,
                          unsigned version)
{
    uint8_t bytes[TLS_TICKET_SECRET_BYTES];
    gnutls_datum_t key = {bytes, sizeof(bytes)};
    char use[TLS_NAME_MAX_BYTES + 16];
    if (!context->tickets)
        return 0;
    int len = snprintf(use, sizeof(use), "%u %s", version, state->name ? state->name : "");
    int code = gnutls_hmac_fast(GNUTLS_MAC_SHA512, context->ticket_key, sizeof(context->ticket_key),
                                use, (size_t)len, bytes);
    if (code >= 0)
        code = gnutls_session_ticket_enable_server(state->session, &key);
    gnutls_memset(bytes, 0, sizeof(bytes));
    return code;
}

/* What the client wants most of what the server allows anyway. */
static int set_order(struct tls_gnutls_state *state, struct tls_gnutls_context *context,
                     const struct tls_policy *policy, const struct tls_gnutls_hello *hello)
{
    enum tls_group group = tls_gnutls_first_group(hello, policy);
    gnutls_priority_t order = tls_gnutls_order(context, policy, hello->wants_chacha, group);
    if (order == context->order) /* it is set already */
        return 0;
    return order ? gnutls_priority_set(state->session, order) : GNUTLS_E_MEMORY_ERROR;
}

static int prepare(struct tls_session *session, const struct tls_gnutls_hello *hello)
{
    const struct tls_policy *policy = &session->server->config.policy;
    struct tls_gnutls_state *state = session->library;
    struct tls_gnutls_context *context = session->server->context;
    unsigned version = tls_gnutls_agree(hello, policy);
    if (!version)
        return GNUTLS_E_UNSUPPORTED_VERSION_PACKET;
    int code = keep_name(state, hello->name);
    state->hello_done = true;
    state->offers_ecdsa = hello->offers_ecdsa;
    if (code >= 0)
        code = set_order(state, context, policy, hello);
    return code < 0 ? code : enable_tickets(state, context, version);
}

/* After a HelloRetryRequest. */
static int compare(struct tls_session *session, const struct tls_gnutls_hello *hello)
{
    const struct tls_gnutls_state *state = session->library;
    struct slice first = slice_from_cstr(state->name);
    if (slice_equal_nocase(first, hello->name))
        return 0;
    tls_fail(session, "the client's second hello names another server");
    return GNUTLS_E_ILLEGAL_PARAMETER;
}

static int answer(struct tls_session *session, const struct tls_gnutls_hello *hello,
                  const gnutls_datum_t *message)
{
    struct tls_gnutls_state *state = session->library;
    /* Anything else in the hello's records would stay in a buffer of the library, and go before
     * what is replayed. */
    if (session->server->config.asks_hello &&
        state->watch.bodies != MESSAGE_HEADER_BYTES + message->size)
        return GNUTLS_E_UNEXPECTED_PACKET;
    switch (
        tls_hello_answer(session, hello->name.ptr, hello->name.len, hello->alpn, state->chosen)) {
    case 0:
        return prepare(session, hello);
    case -EAGAIN:
        return keep_for_replay(state, message);
    case -ENOENT:
        return GNUTLS_E_UNRECOGNIZED_NAME;
    default:
        return GNUTLS_E_MEMORY_ERROR;
    }
}

int tls_gnutls_on_hello(gnutls_session_t library, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *message)
{
    struct tls_session *session = gnutls_session_get_ptr(library);
    const struct tls_gnutls_state *state = session->library;
    struct tls_gnutls_hello hello;
    (void)type;
    (void)when;
    (void)incoming;
    int code = tls_gnutls_hello_read(&hello, &session->server->config.policy, message);
    if (code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH)
        tls_fail(session, "the client's hello is malformed");
    if (code < 0)
        return code;
    return state->hello_done ? compare(session, &hello) : answer(session, &hello, message);
}
