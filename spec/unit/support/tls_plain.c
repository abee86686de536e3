#include "tls_plain.h"

#include <openssl/err.h>

#include <errno.h>

void tls_plain_create(struct tls_plain *plain, const char *name)
{
    plain->ctx = SSL_CTX_new(TLS_client_method());
    plain->ssl = SSL_new(plain->ctx);
    plain->incoming = BIO_new(BIO_s_mem());
    plain->outgoing = BIO_new(BIO_s_mem());
    SSL_set_bio(plain->ssl, plain->incoming, plain->outgoing);
    SSL_set_connect_state(plain->ssl);
    if (name)
        SSL_set_tlsext_host_name(plain->ssl, name);
}

void tls_plain_free(struct tls_plain *plain)
{
    SSL_free(plain->ssl);
    SSL_CTX_free(plain->ctx);
    ERR_clear_error();
}

/* The server's turn. */
static void serve(struct tls_plain *plain, struct tls_side *server)
{
    char *bytes;
    long len = BIO_get_mem_data(plain->outgoing, &bytes);
    server->session.input = slice_of(bytes, (size_t)len);
    if (server->result == -EAGAIN)
        server->result = tls_handshake(&server->session);
    server->session.input = slice_of(NULL, 0);
    BIO_reset(plain->outgoing);
    struct tls_output *output = &server->session.output;
    if (output->len)
        BIO_write(plain->incoming, output->bytes, (int)output->len);
    tls_output_release(output);
}

void tls_plain_begin(struct tls_plain *plain, struct tls_pair *pair)
{
    struct tls_side *server = &pair->at_server;
    assert_false(server->begun);
    assert_int_equal(tls_accept(&server->session, pair->server), 0);
    server->begun = true;
    server->result = -EAGAIN;
    assert_int_not_equal(SSL_do_handshake(plain->ssl), 1);
}

bool tls_plain_step(struct tls_plain *plain, struct tls_pair *pair)
{
    serve(plain, &pair->at_server);
    return SSL_do_handshake(plain->ssl) == 1;
}

bool tls_plain_shake(struct tls_plain *plain, struct tls_pair *pair)
{
    bool done;
    tls_plain_begin(plain, pair);
    do
        done = tls_plain_step(plain, pair);
    while (!done && SSL_want_read(plain->ssl) && BIO_ctrl_pending(plain->outgoing));
    serve(plain, &pair->at_server);
    return done;
}

int tls_plain_peer_kind(const struct tls_plain *plain)
{
    return EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_get0_peer_certificate(plain->ssl)));
}
