/*
 * Sessions of GnuTLS. Owns each session's struct tls_gnutls_state. Never suspends: the library's
 * pull says EAGAIN when there is no input, its push always takes everything.
 *
 * GNUTLS_E_AGAIN means two things: that pull was starved, or that a record was consumed which has
 * no data (a ticket, a key update). Only the first ends a call.
 */
#include "tls/gnutls_internal.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- The transport ---------------------------------------------------------------------------- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *bytes, size_t size)
{
    struct tls_session *session = ptr;
    struct tls_gnutls_state *state = session->library;
    size_t count = state->replay_len - state->replay_at;
    if (state->replay) {
        count = count < size ? count : size;
        memcpy(bytes, state->replay + state->replay_at, count);
        state->replay_at += count;
        if (state->replay_at == state->replay_len) {
            free(state->replay);
            state->replay = NULL;
            state->replay_at = state->replay_len = 0;
        }
        return (ssize_t)count;
    }
    count = tls_take(session, bytes, size);
    if (count) {
        tls_gnutls_watch(state, bytes, count);
        return (ssize_t)count;
    }
    state->starved = true;
    gnutls_transport_set_errno(state->session, EAGAIN);
    return -1;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
    struct tls_session *session = ptr;
    struct tls_gnutls_state *state = session->library;
    (void)ms;
    return state->replay || session->input.len;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *bytes, size_t size)
{
    struct tls_session *session = ptr;
    struct tls_gnutls_state *state = session->library;
    if (tls_put(session, bytes, size) == 0)
        return (ssize_t)size;
    gnutls_transport_set_errno(state->session, ENOMEM);
    return -1;
}

static bool goes_on(const struct tls_gnutls_state *state, int code)
{
    return code == GNUTLS_E_WARNING_ALERT_RECEIVED || code == GNUTLS_E_INTERRUPTED ||
           (code == GNUTLS_E_AGAIN && !state->starved);
}

/* --- Begin and end ---------------------------------------------------------------------------- */

static void destroy(struct tls_gnutls_state *state)
{
    if (state->session)
        gnutls_deinit(state->session);
    free(state->replay);
    free(state->name);
    free(state);
}

static int set_up(struct tls_session *session, const struct tls_gnutls_context *context,
                  unsigned flags)
{
    struct tls_gnutls_state *state = session->library;
    int code = gnutls_init(&state->session, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    if (code < 0) {
        state->session = NULL;
        return code;
    }
    gnutls_session_set_ptr(state->session, session);
    gnutls_transport_set_ptr(state->session, session);
    gnutls_transport_set_pull_function(state->session, pull);
    gnutls_transport_set_pull_timeout_function(state->session, pull_timeout);
    gnutls_transport_set_push_function(state->session, push);
    gnutls_handshake_set_timeout(state->session, 0);
    code = gnutls_priority_set(state->session, context->order);
    if (code >= 0)
        code = gnutls_credentials_set(state->session, GNUTLS_CRD_CERTIFICATE, context->credentials);
    if (code >= 0 && context->alpn_count)
        code = gnutls_alpn_set_protocols(state->session, context->alpn, context->alpn_count,
                                         GNUTLS_ALPN_MANDATORY | GNUTLS_ALPN_SERVER_PRECEDENCE);
    return code;
}

static int begin(struct tls_session *session, const struct tls_gnutls_context *context,
                 unsigned flags)
{
    struct tls_gnutls_state *state = calloc(1, sizeof(*state));
    if (!state)
        return -ENOMEM;
    state->alert = -1;
    session->library = state;
    if (set_up(session, context, flags) >= 0)
        return 0;
    destroy(state);
    session->library = NULL;
    return -ENOMEM;
}

static int give_up(struct tls_session *session)
{
    destroy(session->library);
    session->library = NULL;
    return -ENOMEM;
}

static int session_accept(struct tls_session *session)
{
    static const gnutls_certificate_request_t requests[] = {
        [TLS_CLIENT_NONE] = GNUTLS_CERT_IGNORE,
        [TLS_CLIENT_OPTIONAL] = GNUTLS_CERT_REQUEST,
        [TLS_CLIENT_REQUIRED] = GNUTLS_CERT_REQUIRE,
    };
    struct tls_gnutls_context *context = session->server->context;
    unsigned flags = GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET;
    if (!context->tickets)
        flags |= GNUTLS_NO_TICKETS;
    int result = begin(session, context, flags);
    if (result < 0)
        return result;
    struct tls_gnutls_state *state = session->library;
    enum tls_client_auth auth = session->server->config.client_auth;
    gnutls_certificate_server_set_request(state->session, requests[auth]);
    if (auth != TLS_CLIENT_NONE)
        gnutls_session_set_verify_function(state->session, tls_gnutls_on_verify);
    gnutls_handshake_set_hook_function(state->session, GNUTLS_HANDSHAKE_CLIENT_HELLO,
                                       GNUTLS_HOOK_PRE, tls_gnutls_on_hello);
    gnutls_db_set_cache_expiration(state->session, TLS_GNUTLS_RESUMABLE_S);
    return 0;
}

static int on_ticket(gnutls_session_t library, unsigned type, unsigned when, unsigned incoming,
                     const gnutls_datum_t *message)
{
    struct tls_session *session = gnutls_session_get_ptr(library);
    struct tls_gnutls_state *state = session->library;
    (void)type;
    (void)when;
    (void)incoming;
    (void)message;
    state->ticket_came = true;
    return 0;
}

/* A remembered session is as trustworthy as the one that it came from. What cannot be resumed any
 * more is not. */
static void resume(struct tls_session *session)
{
    struct tls_gnutls_state *state = session->library;
    if (!tls_remembers(session))
        return;
    const struct tls_memory *memory = session->memory;
    assert(memory && memory->len);
    size_t len = memory->len - 1;
    if (memory->bytes[len] || session->client->config.insecure)
        gnutls_session_set_data(state->session, memory->bytes, len);
}

static int session_connect(struct tls_session *session, const char *name)
{
    int result = begin(session, session->client->context, GNUTLS_CLIENT | GNUTLS_KEY_SHARE_TOP);
    if (result < 0)
        return result;
    struct tls_gnutls_state *state = session->library;
    state->name = strdup(name);
    if (!state->name)
        return give_up(session);
    for (char *at = state->name; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    if (!session->client->config.insecure)
        gnutls_session_set_verify_function(state->session, tls_gnutls_on_verify);
    if (session->memory)
        gnutls_handshake_set_hook_function(state->session, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET,
                                           GNUTLS_HOOK_POST, on_ticket);
    resume(session);
    if (!tls_is_address(name) && gnutls_server_name_set(state->session, GNUTLS_NAME_DNS,
                                                        state->name, strlen(state->name)) < 0)
        return give_up(session);
    return 0;
}

static void session_end(struct tls_session *session)
{
    destroy(session->library);
    session->library = NULL;
}

/* --- Life ------------------------------------------------------------------------------------- */

/* Behind the library's session stands whether its server was verified. */
static void remember(struct tls_session *session)
{
    struct tls_gnutls_state *state = session->library;
    gnutls_datum_t data;
    if (!state->ticket_came || !state->open)
        return;
    state->ticket_came = false;
    if (gnutls_session_get_data2(state->session, &data) < 0)
        return;
    uint8_t *bytes = malloc(data.size + 1);
    if (bytes) {
        memcpy(bytes, data.data, data.size);
        bytes[data.size] = !session->client->config.insecure;
        tls_remember(session, bytes, data.size + 1);
    }
    free(bytes);
    gnutls_free(data.data);
}

static int finish(struct tls_session *session)
{
    struct tls_gnutls_state *state = session->library;
    state->open = true;
    remember(session);
    const struct tls_gnutls_context *context = session->server ? session->server->context : NULL;
    if (context && context->tickets && gnutls_protocol_get_version(state->session) == GNUTLS_TLS1_3)
        return gnutls_session_ticket_send(state->session, 1, 0);
    return 0;
}

static bool awaits_answer(const struct tls_session *session)
{
    const struct tls_gnutls_state *state = session->library;
    return session->hello && state->replay;
}

static int session_handshake(struct tls_session *session)
{
    struct tls_gnutls_state *state = session->library;
    int code;
    if (state->failed)
        return -EPROTO;
    if (awaits_answer(session))
        return TLS_HELLO;
    do {
        state->starved = false;
        code = gnutls_handshake(state->session);
    } while (!awaits_answer(session) && goes_on(state, code));
    if (awaits_answer(session))
        return TLS_HELLO;
    if (code == GNUTLS_E_AGAIN)
        return -EAGAIN;
    if (code >= 0)
        code = finish(session);
    return code < 0 ? tls_gnutls_fail(session, code) : 0;
}

/* The peer wants to negotiate again (TLS 1.2). It is refused once; a client's hello is in a buffer
 * of the library then, which is emptied by the next read, at the price of an error. */
static int refuse_renegotiation(struct tls_session *session)
{
    struct tls_gnutls_state *state = session->library;
    if (state->renegotiated) {
        tls_fail(session, "the peer insists on renegotiation");
        return GNUTLS_E_UNEXPECTED_PACKET;
    }
    state->renegotiated = true;
    state->hello_dropped = session->server != NULL;
    gnutls_alert_send(state->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
    return GNUTLS_E_INTERRUPTED;
}

static ssize_t receive(struct tls_session *session, void *bytes, size_t size)
{
    struct tls_gnutls_state *state = session->library;
    bool dropping = state->hello_dropped;
    state->starved = false;
    state->hello_dropped = false;
    ssize_t code = gnutls_record_recv(state->session, bytes, size);
    if (code == GNUTLS_E_REHANDSHAKE)
        return refuse_renegotiation(session);
    if (code == GNUTLS_E_UNEXPECTED_PACKET && dropping)
        return GNUTLS_E_INTERRUPTED;
    return code;
}

static ssize_t session_read(struct tls_session *session, void *bytes, size_t size)
{
    struct tls_gnutls_state *state = session->library;
    ssize_t code;
    if (state->failed)
        return -EPROTO;
    do {
        code = receive(session, bytes, size);
    } while (goes_on(state, (int)code));
    remember(session);
    if (code == GNUTLS_E_AGAIN)
        return -EAGAIN;
    return code < 0 ? tls_gnutls_fail(session, (int)code) : code;
}

static int session_write(struct tls_session *session, const void *bytes, size_t size, size_t record)
{
    struct tls_gnutls_state *state = session->library;
    const char *from = bytes;
    if (state->failed)
        return -EPROTO;
    /* A client of TLS 1.2 may have asked for shorter ones (RFC 6066, 4), which the library grants
     * and forgets. */
    size_t record_max = gnutls_record_get_max_size(state->session);
    if (record > record_max)
        record = record_max;
    while (size) {
        ssize_t sent = gnutls_record_send(state->session, from, size < record ? size : record);
        if (sent < 0)
            return tls_gnutls_fail(session, (int)sent);
        from += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static void session_close(struct tls_session *session)
{
    struct tls_gnutls_state *state = session->library;
    if (state->failed || state->closed || !state->open)
        return;
    state->closed = true;
    gnutls_bye(state->session, GNUTLS_SHUT_WR);
}

static const char *version(void)
{
    return gnutls_check_version(NULL);
}

const struct tls_backend tls_gnutls = {
    .name = "gnutls",
    .version = version,
    .certificate_load = tls_gnutls_certificate_load,
    .certificate_free = tls_gnutls_certificate_free,
    .server_create = tls_gnutls_server_create,
    .server_destroy = tls_gnutls_context_destroy,
    .client_create = tls_gnutls_client_create,
    .client_destroy = tls_gnutls_context_destroy,
    .accept = session_accept,
    .connect = session_connect,
    .handshake = session_handshake,
    .read = session_read,
    .write = session_write,
    .close = session_close,
    .describe = tls_gnutls_describe,
    .describe_peer = tls_gnutls_describe_peer,
    .end = session_end,
};
