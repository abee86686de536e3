/* What peers may ask for in an open session: new keys, which they get, and new handshakes, which
 * they do not. The libraries of clients are asked directly for what clients of ours never do. */
#include "support/tls_pair.h"

#include "tls/gnutls_internal.h"
#include "tls/openssl_internal.h"

#include <errno.h>

static void open_session(struct tls_pair *pair, enum tls_version version)
{
    tls_pair_prepare(pair);
    tls_pair_ask(pair, &(struct tls_client_config){
                           .policy = {.version_min = version, .version_max = version},
                           .authorities = test_chain(CERT_CA),
                       });
    tls_pair_open(pair, "one.example");
}

static SSL *openssl_client(struct tls_pair *pair)
{
    struct openssl_session *own = pair->at_client.session.library;
    return own->ssl;
}

static gnutls_session_t gnutls_client(struct tls_pair *pair)
{
    struct tls_gnutls_state *own = pair->at_client.session.library;
    return own->session;
}

static void assert_message(struct tls_pair *pair, struct tls_side *from, struct tls_side *to)
{
    char bytes[10];
    assert_int_equal(tls_write(&from->session, "hello", 5, 100), 0);
    tls_pair_carry(pair);
    assert_int_equal(tls_side_read(to, bytes, sizeof(bytes)), 5);
    assert_memory_equal(bytes, "hello", 5);
    assert_int_equal(tls_side_read(to, bytes, sizeof(bytes)), -EAGAIN);
}

static void assert_talk(struct tls_pair *pair)
{
    assert_message(pair, &pair->at_client, &pair->at_server);
    assert_message(pair, &pair->at_server, &pair->at_client);
}

/* --- Keys ------------------------------------------------------------------------------------- */

static void update_keys(struct tls_pair *pair, bool of_both)
{
    if (pair->client_library == TLS_GNUTLS) {
        assert_int_equal(
            gnutls_session_key_update(gnutls_client(pair), of_both ? GNUTLS_KU_PEER : 0), 0);
        return;
    }
    assert_int_equal(SSL_key_update(openssl_client(pair), of_both ? SSL_KEY_UPDATE_REQUESTED
                                                                  : SSL_KEY_UPDATE_NOT_REQUESTED),
                     1);
    assert_int_equal(SSL_do_handshake(openssl_client(pair)), 1);
}

static void keys_may_change(struct tls_pair *pair)
{
    open_session(pair, TLS_1_3);
    for (unsigned i = 0; i < 4; i++) {
        update_keys(pair, i % 2);
        assert_talk(pair);
    }
}

/* Whoever has closed its own direction may still be asked for new keys for it. */
static void keys_may_change_after_a_close(struct tls_pair *pair)
{
    char byte;
    open_session(pair, TLS_1_3);
    tls_close(&pair->at_server.session);
    tls_pair_carry(pair);
    assert_int_equal(tls_side_read(&pair->at_client, &byte, 1), 0);
    update_keys(pair, true);
    assert_message(pair, &pair->at_client, &pair->at_server);
}

/* --- Handshakes ------------------------------------------------------------------------------- */

/* Sends a hello in an open session of TLS 1.2. */
static void renegotiate(struct tls_pair *pair)
{
    if (pair->client_library == TLS_GNUTLS) {
        assert_int_equal(gnutls_handshake(gnutls_client(pair)), GNUTLS_E_AGAIN);
        return;
    }
    SSL *ssl = openssl_client(pair);
    SSL_clear_options(ssl, SSL_OP_NO_RENEGOTIATION);
    assert_int_equal(SSL_renegotiate(ssl), 1);
    assert_int_equal(SSL_do_handshake(ssl), -1);
}

static void assert_refused(struct tls_pair *pair)
{
    enum { RECORD_ALERT = 21 };
    char byte;
    tls_pair_carry(pair);
    assert_int_equal(tls_side_read(&pair->at_server, &byte, 1), -EAGAIN);
    assert_int_equal(pair->at_server.inbox_len, 0);
    assert_true(pair->at_server.session.output.len > 0);
    assert_int_equal(pair->at_server.session.output.bytes[0], RECORD_ALERT);
}

static void no_client_gets_a_new_handshake(struct tls_pair *pair)
{
    open_session(pair, TLS_1_2);
    renegotiate(pair);
    assert_refused(pair);
    assert_int_equal(tls_write(&pair->at_server.session, "on", 2, 100), 0);
}

/* Those of OpenSSL give up themselves. */
static void a_refused_client_may_go_on(struct tls_pair *pair)
{
    char byte;
    if (pair->client_library != TLS_GNUTLS)
        return;
    open_session(pair, TLS_1_2);
    renegotiate(pair);
    assert_refused(pair);
    tls_pair_carry(pair);
    assert_int_equal(tls_side_read(&pair->at_client, &byte, 1), -EAGAIN);
    assert_talk(pair);
}

/* Asks the client for a new handshake. */
static void request_handshake(struct tls_pair *pair)
{
    if (pair->server_library == TLS_GNUTLS) {
        struct tls_gnutls_state *own = pair->at_server.session.library;
        assert_int_equal(gnutls_rehandshake(own->session), 0);
    } else {
        struct openssl_session *own = pair->at_server.session.library;
        SSL_clear_options(own->ssl, SSL_OP_NO_RENEGOTIATION);
        assert_int_equal(SSL_renegotiate(own->ssl), 1);
        assert_int_equal(SSL_do_handshake(own->ssl), 1);
    }
    assert_true(pair->at_server.session.output.len > 0);
    tls_pair_carry(pair);
}

static void no_server_gets_a_new_handshake(struct tls_pair *pair)
{
    char byte;
    open_session(pair, TLS_1_2);
    request_handshake(pair);
    assert_int_equal(tls_side_read(&pair->at_client, &byte, 1), -EAGAIN);
    assert_true(pair->at_client.session.output.len > 0);
    if (pair->server_library == TLS_GNUTLS) /* the other gives up itself */
        assert_message(pair, &pair->at_client, &pair->at_server);
}

static const struct tls_case cases[] = {
    TLS_CASE(keys_may_change),
    TLS_CASE(keys_may_change_after_a_close),
    TLS_CASE(no_client_gets_a_new_handshake),
    TLS_CASE(a_refused_client_may_go_on),
    TLS_CASE(no_server_gets_a_new_handshake),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
