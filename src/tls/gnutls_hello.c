/*
 * How servers of GnuTLS answer a client's hello, which is read before the library does it.
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
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_ALPN = 16,
    EXTENSION_VERSIONS = 43,
    RECORD_HANDSHAKE = 22,
    RECORD_HEADER_BYTES = 5,
    MESSAGE_CLIENT_HELLO = 1,
    MESSAGE_HEADER_BYTES = 4,
    HELLO_SESSION_ID_AT = 34, /* behind version and random */
    WIRE_TLS_1_2 = 0x0303,
    WIRE_TLS_1_3 = 0x0304,
};

struct hello {
    struct slice name;
    struct slice alpn;
    struct slice versions; /* two bytes each; empty: those up to version */
    unsigned version;
    bool offers_ecdsa;
    bool wants_chacha; /* rather than AES */
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

static int read_versions(struct hello *hello, const unsigned char *bytes, unsigned size)
{
    if (size < 3 || bytes[0] != size - 1 || bytes[0] % 2)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    hello->versions = slice_of((const char *)bytes + 1, size - 1);
    return 0;
}

static int read_extension(void *owner, unsigned id, const unsigned char *bytes, unsigned size)
{
    if (id == EXTENSION_SERVER_NAME)
        return read_name(owner, bytes, size);
    if (id == EXTENSION_ALPN)
        return read_alpn(owner, bytes, size);
    if (id == EXTENSION_VERSIONS)
        return read_versions(owner, bytes, size);
    return 0;
}

enum suite_kind { SUITE_ECDSA = 1, SUITE_CHACHA = 2, SUITE_IGNORED = 4 };

/* What is remarkable about a suite that the client offers. */
static unsigned judge(const struct tls_policy *policy, unsigned suite)
{
    static const unsigned ecdsa[TLS_CIPHER_COUNT] = {
        [TLS_AES128_GCM] = 0xc02b,
        [TLS_AES256_GCM] = 0xc02c,
        [TLS_CHACHA20_POLY1305] = 0xcca9,
    };
    bool greases = (suite & 0x0f0f) == 0x0a0a; /* RFC 8701: suites that are none */
    if (greases || suite == 0x00ff)            /* and a signal (RFC 5746) */
        return SUITE_IGNORED;
    unsigned kind = suite == 0x1303 || suite == 0xcca8 || suite == 0xcca9 ? SUITE_CHACHA : 0;
    for (unsigned i = 0; i < policy->cipher_count; i++)
        if (ecdsa[policy->ciphers[i]] == suite)
            kind |= SUITE_ECDSA;
    return kind;
}

/* The message is one whose lengths were checked, by gnutls_ext_raw_parse. */
static void read_suites(struct hello *hello, const struct tls_policy *policy,
                        const gnutls_datum_t *message)
{
    const unsigned char *suites = message->data + HELLO_SESSION_ID_AT;
    suites += 1 + suites[0];
    unsigned size = read_16(suites);
    bool first = true;
    for (unsigned at = 0; at + 1 < size; at += 2) {
        unsigned kind = judge(policy, read_16(suites + 2 + at));
        hello->offers_ecdsa |= (kind & SUITE_ECDSA) != 0;
        hello->wants_chacha |= first && (kind & SUITE_CHACHA);
        first = first && (kind & SUITE_IGNORED);
    }
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

/* The version that will be agreed on; 0: none. The library would look for ciphers that fit no
 * version, and complain of those. */
static unsigned agree(const struct hello *hello, const struct tls_policy *policy)
{
    const unsigned char *bytes = (const unsigned char *)hello->versions.ptr;
    unsigned agreed = 0;
    if (!hello->versions.len && hello->version >= WIRE_TLS_1_2 && policy->version_min <= TLS_1_2)
        return TLS_1_2;
    for (size_t i = 0; i + 1 < hello->versions.len; i += 2) {
        unsigned version = read_16(bytes + i);
        if (version == WIRE_TLS_1_3 && policy->version_max >= TLS_1_3)
            return TLS_1_3;
        if (version == WIRE_TLS_1_2 && policy->version_min <= TLS_1_2)
            agreed = TLS_1_2;
    }
    return agreed;
}

static int prepare(struct tls_session *session, const struct hello *hello)
{
    struct tls_gnutls_state *state = session->library;
    const struct tls_gnutls_context *context = session->server->context;
    unsigned version = agree(hello, &session->server->config.policy);
    if (!version)
        return GNUTLS_E_UNSUPPORTED_VERSION_PACKET;
    int code = keep_name(state, hello->name);
    state->hello_done = true;
    state->offers_ecdsa = hello->offers_ecdsa;
    if (code >= 0 && hello->wants_chacha && context->chacha_first)
        code = gnutls_priority_set(state->session, context->chacha_first);
    return code < 0 ? code : enable_tickets(state, context, version);
}

/* After a HelloRetryRequest. */
static int compare(struct tls_session *session, const struct hello *hello)
{
    const struct tls_gnutls_state *state = session->library;
    struct slice first = slice_from_cstr(state->name);
    if (slice_equal_nocase(first, hello->name))
        return 0;
    tls_fail(session, "the client's second hello names another server");
    return GNUTLS_E_ILLEGAL_PARAMETER;
}

static int answer(struct tls_session *session, const struct hello *hello,
                  const gnutls_datum_t *message)
{
    struct tls_gnutls_state *state = session->library;
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
    struct hello hello = {0};
    (void)type;
    (void)when;
    (void)incoming;
    int code =
        gnutls_ext_raw_parse(&hello, read_extension, message, GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO);
    if (code < 0 && code != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) { /* no extensions: very well */
        if (code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH)
            tls_fail(session, "the client's hello is malformed");
        return code;
    }
    hello.version = read_16(message->data);
    read_suites(&hello, &session->server->config.policy, message);
    return state->hello_done ? compare(session, &hello) : answer(session, &hello, message);
}
