/* Which certificate a server shows to whom: by configuration, or as answered to a hello. */
#include "support/tls_pair.h"
#include "support/tls_plain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum test_certificate_id all[] = {CERT_ONE_RSA, CERT_TWO_ECDSA, CERT_COMMON_NAME,
                                               CERT_ONE_ECDSA};

static void serve(struct tls_pair *pair, struct tls_server_config config)
{
    tls_pair_serve_with(pair, config, all, sizeof(all) / sizeof(all[0]));
}

static void ask_anyone(struct tls_pair *pair)
{
    tls_pair_ask(pair, &(struct tls_client_config){.insecure = true});
}

/* Opens, and looks at the serial number of what the client was shown. */
static void assert_shown(struct tls_pair *pair, const char *name, enum test_certificate_id id)
{
    char serial[16];
    struct tls_peer peer;
    tls_pair_open(pair, name);
    assert_int_equal(tls_describe_peer(&pair->at_client.session, &peer), 0);
    snprintf(serial, sizeof(serial), "%04x", 0xabc0 + id);
    assert_string_equal(peer.serial, serial);
    tls_peer_free(&peer);
}

/* --- By configuration ------------------------------------------------------------------------- */

static void the_name_chooses(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){0});
    ask_anyone(pair);
    assert_shown(pair, "one.example", CERT_ONE_ECDSA);
    assert_shown(pair, "two.example", CERT_TWO_ECDSA);
    assert_shown(pair, "common.example", CERT_COMMON_NAME);
    assert_string_equal(tls_side_info(&pair->at_server).name, "common.example");
    assert_string_equal(tls_side_info(&pair->at_client).name, "common.example");
}

static void names_match_in_either_case(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){0});
    ask_anyone(pair);
    assert_shown(pair, "TWO.example", CERT_TWO_ECDSA);
    assert_string_equal(tls_side_info(&pair->at_server).name, "two.example");
    assert_string_equal(tls_side_info(&pair->at_client).name, "two.example");
}

static void a_wildcard_covers_one_label_and_exact_names_go_first(struct tls_pair *pair)
{
    static const enum test_certificate_id ids[] = {CERT_COMMON_NAME, CERT_ONE_ECDSA,
                                                   CERT_TWO_ECDSA};
    tls_pair_serve_with(pair, (struct tls_server_config){0}, ids, 3);
    ask_anyone(pair);
    assert_shown(pair, "any.wild.example", CERT_ONE_ECDSA);
    assert_shown(pair, "exact.wild.example", CERT_TWO_ECDSA);
    assert_shown(pair, "a.b.wild.example", CERT_COMMON_NAME);
    assert_shown(pair, "wild.example", CERT_COMMON_NAME);
}

static void unknown_names_and_none_get_the_first(struct tls_pair *pair)
{
    static const enum test_certificate_id ids[] = {CERT_TWO_ECDSA, CERT_ONE_ECDSA};
    tls_pair_serve_with(pair, (struct tls_server_config){0}, ids, 2);
    ask_anyone(pair);
    assert_shown(pair, "unknown.example", CERT_TWO_ECDSA);
    assert_shown(pair, "127.0.0.1", CERT_TWO_ECDSA);
    assert_string_equal(tls_side_info(&pair->at_server).name, "");
    assert_string_equal(tls_side_info(&pair->at_client).name, "");
}

static void strict_servers_refuse_unknown_names_and_none(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){.strict_sni = true});
    ask_anyone(pair);
    assert_shown(pair, "one.example", CERT_ONE_ECDSA);
    tls_pair_refuse(pair, "unknown.example");
    assert_non_null(strstr(tls_error(&pair->at_server.session), "unknown.example"));
    assert_non_null(strstr(tls_error(&pair->at_client.session), "name"));
    tls_pair_refuse(pair, "127.0.0.1");
}

static void given_names_replace_those_of_the_certificate(struct tls_pair *pair)
{
    static const char *const names[] = {"given.example", NULL};
    char *error;
    struct tls_certificate_config config = {
        .chain = test_chain(CERT_TWO_ECDSA), .key = test_key(CERT_TWO_ECDSA), .names = names};
    struct tls_certificate *certificate =
        tls_certificate_load(pair->server_library, &config, &error);
    assert_non_null(certificate);
    tls_pair_serve(pair, &(struct tls_server_config){.certificates = &certificate,
                                                     .certificate_count = 1,
                                                     .strict_sni = true});
    tls_certificate_release(certificate);
    ask_anyone(pair);
    assert_shown(pair, "given.example", CERT_TWO_ECDSA);
    tls_pair_refuse(pair, "two.example");
}

/* --- Kinds of keys ---------------------------------------------------------------------------- */

static void assert_kind(struct tls_pair *pair, const char *signatures, int version, int kind)
{
    struct tls_plain plain;
    tls_plain_create(&plain, "one.example");
    if (signatures)
        assert_int_equal(SSL_set1_sigalgs_list(plain.ssl, signatures), 1);
    SSL_set_max_proto_version(plain.ssl, version);
    assert_true(tls_plain_shake(&plain, pair));
    assert_int_equal(tls_plain_peer_kind(&plain), kind);
    tls_plain_free(&plain);
    tls_end(&pair->at_server.session);
    pair->at_server.begun = false;
}

static void ecdsa_goes_before_rsa_for_those_who_know_it(struct tls_pair *pair)
{
    static const char rsa[] = "RSA-PSS+SHA256:RSA+SHA256";
    static const char both[] = "RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA256";
    serve(pair, (struct tls_server_config){0});
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        assert_kind(pair, NULL, version, EVP_PKEY_EC);
        assert_kind(pair, both, version, EVP_PKEY_EC);
        assert_kind(pair, rsa, version, EVP_PKEY_RSA);
    }
}

static void both_kinds_are_the_default_of_those_without_a_name(struct tls_pair *pair)
{
    static const enum test_certificate_id ids[] = {CERT_ONE_RSA, CERT_ONE_ECDSA};
    struct tls_plain plain;
    tls_pair_serve_with(pair, (struct tls_server_config){0}, ids, 2);
    tls_plain_create(&plain, NULL);
    assert_true(tls_plain_shake(&plain, pair));
    assert_int_equal(tls_plain_peer_kind(&plain), EVP_PKEY_EC);
    tls_plain_free(&plain);
}

/* --- OCSP ------------------------------------------------------------------------------------- */

static void serve_stapled(struct tls_pair *pair, struct slice response)
{
    char *error;
    struct tls_certificate_config config = {
        .chain = test_chain(CERT_ONE_ECDSA), .key = test_key(CERT_ONE_ECDSA), .ocsp = response};
    struct tls_certificate *certificate =
        tls_certificate_load(pair->server_library, &config, &error);
    assert_non_null(certificate);
    tls_pair_serve(
        pair, &(struct tls_server_config){.certificates = &certificate, .certificate_count = 1});
    tls_certificate_release(certificate);
}

static void assert_stapled(struct tls_pair *pair, int version, bool asks, struct slice expected)
{
    struct tls_plain plain;
    unsigned char *got;
    tls_plain_create(&plain, "one.example");
    SSL_set_max_proto_version(plain.ssl, version);
    if (asks)
        SSL_set_tlsext_status_type(plain.ssl, TLSEXT_STATUSTYPE_ocsp);
    assert_true(tls_plain_shake(&plain, pair));
    long len = SSL_get_tlsext_status_ocsp_resp(plain.ssl, &got);
    assert_int_equal(len, expected.len ? (long)expected.len : -1);
    if (expected.len)
        assert_memory_equal(got, expected.ptr, expected.len);
    tls_plain_free(&plain);
    tls_end(&pair->at_server.session);
    pair->at_server.begun = false;
}

static void a_response_is_stapled_for_those_who_ask(struct tls_pair *pair)
{
    struct slice response = test_ocsp_response(CERT_ONE_ECDSA, 3600);
    serve_stapled(pair, response);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        assert_stapled(pair, version, true, response);
        assert_stapled(pair, version, false, slice_of(NULL, 0));
    }
    free((char *)response.ptr);
}

static void a_response_that_has_run_out_is_not_stapled(struct tls_pair *pair)
{
    struct slice response = test_ocsp_response(CERT_ONE_ECDSA, -60);
    serve_stapled(pair, response);
    assert_stapled(pair, TLS1_3_VERSION, true, slice_of(NULL, 0));
    free((char *)response.ptr);
}

/* --- Answers to hellos ------------------------------------------------------------------------ */

static const char *const offered[] = {"h2", "http/1.1", NULL};

static void ask_with_alpn(struct tls_pair *pair)
{
    tls_pair_ask(pair, &(struct tls_client_config){.insecure = true, .policy.alpn = offered});
}

static void await_hello(struct tls_pair *pair, const char *name)
{
    tls_pair_begin(pair, name);
    assert_int_equal(pair->at_server.result, TLS_HELLO);
    assert_int_equal(pair->at_server.session.output.len, 0);
    assert_int_equal(pair->at_client.result, -EAGAIN);
    pair->at_server.result = -EAGAIN;
}

static void the_hello_is_shown_and_a_certificate_answers(struct tls_pair *pair)
{
    tls_pair_serve(pair, &(struct tls_server_config){.asks_hello = true});
    ask_with_alpn(pair);
    await_hello(pair, "Any.Name.Example");
    struct tls_hello *hello = pair->at_server.session.hello;
    assert_string_equal(hello->name, "any.name.example");
    assert_true(slice_equal(hello->alpn, SLICE("\2h2\10http/1.1")));
    struct tls_certificate *certificate = tls_load(pair->server_library, CERT_TWO_ECDSA);
    tls_answer_hello(&pair->at_server.session, certificate);
    tls_certificate_release(certificate);
    tls_pair_go_on(pair);
    assert_int_equal(pair->at_server.result, 0);
    assert_int_equal(pair->at_client.result, 0);
    struct tls_peer peer;
    assert_int_equal(tls_describe_peer(&pair->at_client.session, &peer), 0);
    assert_string_equal(peer.names, "DNS:two.example, DNS:exact.wild.example");
    tls_peer_free(&peer);
    assert_string_equal(tls_side_info(&pair->at_server).name, "any.name.example");
}

static void asking_again_before_the_answer_says_the_same(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){.asks_hello = true});
    ask_anyone(pair);
    await_hello(pair, "127.0.0.1");
    assert_int_equal(tls_handshake(&pair->at_server.session), TLS_HELLO);
    assert_string_equal(pair->at_server.session.hello->name, "");
    assert_int_equal(pair->at_server.session.hello->alpn.len, 0);
}

static void no_certificate_answers_with_those_of_the_server(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){.asks_hello = true});
    ask_anyone(pair);
    await_hello(pair, "two.example");
    tls_answer_hello(&pair->at_server.session, NULL);
    tls_pair_go_on(pair);
    assert_int_equal(pair->at_server.result, 0);
    assert_int_equal(pair->at_client.result, 0);
}

static void a_hello_can_be_refused(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){.asks_hello = true});
    ask_anyone(pair);
    await_hello(pair, "two.example");
    tls_refuse_hello(&pair->at_server.session);
    tls_pair_go_on(pair);
    assert_int_equal(pair->at_server.result, -EPROTO);
    assert_int_equal(pair->at_client.result, -EPROTO);
    assert_non_null(strstr(tls_error(&pair->at_server.session), "two.example"));
    assert_non_null(strstr(tls_error(&pair->at_client.session), "name"));
}

static void without_any_certificate_a_hello_is_refused(struct tls_pair *pair)
{
    tls_pair_serve(pair, &(struct tls_server_config){0});
    ask_anyone(pair);
    tls_pair_refuse(pair, "one.example");
}

/* The server's only group is not what clients guess first: a second hello follows the first. */
static void a_second_hello_is_not_asked_about(struct tls_pair *pair)
{
    struct tls_server_config config = {.asks_hello = true};
    config.policy.groups[0] = TLS_SECP521R1;
    config.policy.group_count = 1;
    serve(pair, config);
    ask_anyone(pair);
    await_hello(pair, "two.example");
    tls_answer_hello(&pair->at_server.session, NULL);
    tls_pair_go_on(pair);
    assert_int_equal(pair->at_server.result, 0);
    assert_int_equal(pair->at_client.result, 0);
}

/* What was decided by the first name must not be used with another. */
static void a_second_hello_that_names_another_server_is_refused(struct tls_pair *pair)
{
    struct tls_server_config config = {.policy.groups = {TLS_SECP521R1}, .policy.group_count = 1};
    struct tls_plain plain;
    serve(pair, config);
    tls_plain_create(&plain, "one.example");
    tls_plain_begin(&plain, pair);
    SSL_set_tlsext_host_name(plain.ssl, "two.example");
    assert_false(tls_plain_step(&plain, pair));
    assert_false(tls_plain_step(&plain, pair));
    assert_int_equal(pair->at_server.result, -EPROTO);
    assert_non_null(strstr(tls_error(&pair->at_server.session), "second hello"));
    tls_plain_free(&plain);
}

static void a_session_may_end_while_it_is_asked_for(struct tls_pair *pair)
{
    serve(pair, (struct tls_server_config){.asks_hello = true});
    ask_anyone(pair);
    await_hello(pair, "two.example");
}

static const struct tls_case cases[] = {
    TLS_CASE(the_name_chooses),
    TLS_CASE(names_match_in_either_case),
    TLS_CASE(a_wildcard_covers_one_label_and_exact_names_go_first),
    TLS_CASE(unknown_names_and_none_get_the_first),
    TLS_CASE(strict_servers_refuse_unknown_names_and_none),
    TLS_CASE(given_names_replace_those_of_the_certificate),
    TLS_CASE(ecdsa_goes_before_rsa_for_those_who_know_it),
    TLS_CASE(both_kinds_are_the_default_of_those_without_a_name),
    TLS_CASE(a_response_is_stapled_for_those_who_ask),
    TLS_CASE(a_response_that_has_run_out_is_not_stapled),
    TLS_CASE(the_hello_is_shown_and_a_certificate_answers),
    TLS_CASE(asking_again_before_the_answer_says_the_same),
    TLS_CASE(no_certificate_answers_with_those_of_the_server),
    TLS_CASE(a_hello_can_be_refused),
    TLS_CASE(without_any_certificate_a_hello_is_refused),
    TLS_CASE(a_second_hello_is_not_asked_about),
    TLS_CASE(a_second_hello_that_names_another_server_is_refused),
    TLS_CASE(a_session_may_end_while_it_is_asked_for),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
