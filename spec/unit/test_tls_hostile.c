/* Peers that send nonsense: sessions fail in order, with an error, and never otherwise. */
#include "support/tls_pair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NONSENSE_BYTES = 2000 };

/* The same sequence in every run (xorshift). */
static uint32_t next_number(void)
{
    static uint32_t number = 2463534242U;
    number ^= number << 13;
    number ^= number >> 17;
    number ^= number << 5;
    return number;
}

/* Gives these bytes to a side, from a block of their size. */
static int give(struct tls_session *session, struct slice bytes)
{
    char *block = malloc(bytes.len + 1);
    if (bytes.len)
        memcpy(block + 1, bytes.ptr, bytes.len);
    session->input = slice_of(block + 1, bytes.len);
    int result = tls_handshake(session);
    session->input = slice_of(NULL, 0);
    free(block);
    return result;
}

static int give_server(struct tls_pair *pair, struct slice bytes)
{
    struct tls_session session;
    assert_int_equal(tls_accept(&session, pair->server), 0);
    int result = give(&session, bytes);
    assert_int_equal(result == -EPROTO, tls_error(&session)[0] != '\0');
    tls_end(&session);
    return result;
}

static int give_client(struct tls_pair *pair, struct slice bytes)
{
    struct tls_session session;
    assert_int_equal(tls_connect(&session, pair->client, "one.example", NULL), 0);
    assert_int_equal(tls_handshake(&session), -EAGAIN);
    int result = give(&session, bytes);
    tls_end(&session);
    return result;
}

/* The client's first bytes; malloc'ed. */
static struct slice first_hello(struct tls_pair *pair)
{
    struct tls_session session;
    assert_int_equal(tls_connect(&session, pair->client, "one.example", NULL), 0);
    assert_int_equal(tls_handshake(&session), -EAGAIN);
    size_t len = session.output.len;
    char *copy = memcpy(malloc(len), session.output.bytes, len);
    tls_end(&session);
    return slice_of(copy, len);
}

static void another_protocol_is_refused(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    assert_int_equal(give_server(pair, SLICE("GET / HTTP/1.1\r\nhost: a\r\n\r\n")), -EPROTO);
    assert_int_equal(give_server(pair, SLICE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), -EPROTO);
    assert_int_equal(give_client(pair, SLICE("HTTP/1.1 400 Bad Request\r\n\r\n")), -EPROTO);
}

static void nonsense_never_opens_a_session(struct tls_pair *pair)
{
    char bytes[NONSENSE_BYTES];
    tls_pair_prepare(pair);
    for (unsigned round = 0; round < 200; round++) {
        size_t len = next_number() % NONSENSE_BYTES;
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)next_number();
        if (round % 2 && len > 5)
            memcpy(bytes, "\26\3\1\1", 4);
        assert_int_not_equal(give_server(pair, slice_of(bytes, len)), 0);
        assert_int_not_equal(give_client(pair, slice_of(bytes, len)), 0);
    }
}

static void a_hello_cut_anywhere_is_awaited(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    struct slice hello = first_hello(pair);
    for (size_t cut = 0; cut < hello.len; cut++)
        assert_int_equal(give_server(pair, slice_of(hello.ptr, cut)), -EAGAIN);
    free((char *)hello.ptr);
}

/* Whatever byte is changed, the server says no or goes on: it does not fall. */
static void a_hello_changed_anywhere_does_no_harm(struct tls_pair *pair)
{
    static const enum test_certificate_id ids[] = {CERT_ONE_ECDSA, CERT_ONE_RSA};
    static const char *const protocols[] = {"h2", "http/1.1", NULL};
    tls_pair_serve_with(
        pair, (struct tls_server_config){.strict_sni = true, .policy.alpn = protocols}, ids, 2);
    tls_pair_ask(pair, &(struct tls_client_config){.insecure = true, .policy.alpn = protocols});
    struct slice hello = first_hello(pair);
    for (size_t at = 0; at < hello.len; at++) {
        char *changed = (char *)hello.ptr;
        char before = changed[at];
        changed[at] = (char)(at % 3 == 0 ? 0xff : before ^ (1 << at % 8));
        assert_int_not_equal(give_server(pair, hello), 0);
        changed[at] = before;
    }
    free((char *)hello.ptr);
}

static void an_answer_changed_anywhere_does_no_harm(struct tls_pair *pair)
{
    struct tls_session server;
    tls_pair_prepare(pair);
    struct slice hello = first_hello(pair);
    assert_int_equal(tls_accept(&server, pair->server), 0);
    assert_int_equal(give(&server, hello), -EAGAIN);
    for (size_t at = 0; at < server.output.len; at += 3) {
        char before = server.output.bytes[at];
        server.output.bytes[at] ^= (char)(1 << at % 8);
        assert_int_not_equal(give_client(pair, slice_of(server.output.bytes, server.output.len)),
                             0);
        server.output.bytes[at] = before;
    }
    tls_end(&server);
    free((char *)hello.ptr);
}

/* --- Open sessions ---------------------------------------------------------------------------- */

static void a_changed_record_is_refused(struct tls_pair *pair)
{
    char bytes[10];
    tls_pair_prepare(pair);
    for (unsigned i = 0; i < 20; i++) {
        tls_pair_open(pair, "one.example");
        assert_int_equal(tls_write(&pair->at_client.session, "secret", 6, 100), 0);
        pair->at_client.session.output.bytes[5 + i] ^= 1;
        tls_pair_carry(pair);
        assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), -EPROTO);
        assert_true(tls_error(&pair->at_server.session)[0]);
        assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), -EPROTO);
        assert_int_equal(tls_write(&pair->at_server.session, "more", 4, 100), -EPROTO);
        tls_close(&pair->at_server.session);
    }
}

static void a_record_that_is_sent_again_is_refused(struct tls_pair *pair)
{
    char bytes[10];
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    assert_int_equal(tls_write(&pair->at_client.session, "once", 4, 100), 0);
    struct tls_output *output = &pair->at_client.session.output;
    size_t len = output->len;
    output->bytes = realloc(output->bytes, 2 * len);
    memcpy(output->bytes + len, output->bytes, len);
    output->len = output->capacity = 2 * len;
    tls_pair_carry(pair);
    assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), 4);
    assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), -EPROTO);
}

static void plain_text_in_an_open_session_is_refused(struct tls_pair *pair)
{
    static const char plain[] = "\27\3\3\0\5hello";
    char bytes[10];
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    struct tls_session *server = &pair->at_server.session;
    server->input = slice_of(plain, sizeof(plain) - 1);
    assert_int_equal(tls_read(server, bytes, sizeof(bytes)), -EPROTO);
    server->input = slice_of(NULL, 0);
}

static const struct tls_case cases[] = {
    TLS_CASE(another_protocol_is_refused),
    TLS_CASE(nonsense_never_opens_a_session),
    TLS_CASE(a_hello_cut_anywhere_is_awaited),
    TLS_CASE(a_hello_changed_anywhere_does_no_harm),
    TLS_CASE(an_answer_changed_anywhere_does_no_harm),
    TLS_CASE(a_changed_record_is_refused),
    TLS_CASE(a_record_that_is_sent_again_is_refused),
    TLS_CASE(plain_text_in_an_open_session_is_refused),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
