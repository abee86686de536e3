/* Whom each side trusts: verification of servers, certificates of clients, what is told of them. */
#include "support/tls_pair.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void serve(struct tls_pair *pair, enum test_certificate_id id)
{
    tls_pair_serve_with(pair, (struct tls_server_config){0}, &id, 1);
}

static void trust(struct tls_pair *pair, enum test_certificate_id authority)
{
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(authority)});
}

/* --- Servers ---------------------------------------------------------------------------------- */

static void a_good_server_is_trusted(struct tls_pair *pair)
{
    trust(pair, CERT_CA);
    serve(pair, CERT_ONE_ECDSA);
    tls_pair_open(pair, "one.example");
    assert_true(tls_side_info(&pair->at_client).has_peer);
    assert_false(tls_side_info(&pair->at_server).has_peer);
    tls_pair_open(pair, "some.wild.example");
    tls_pair_open(pair, "127.0.0.1");
    tls_pair_open(pair, "::1");
    serve(pair, CERT_ONE_RSA);
    tls_pair_open(pair, "one.example");
    serve(pair, CERT_TWO_ECDSA);
    tls_pair_open(pair, "two.example");
}

static void an_intermediate_may_be_all_that_is_trusted(struct tls_pair *pair)
{
    trust(pair, CERT_INTERMEDIATE);
    serve(pair, CERT_TWO_ECDSA);
    tls_pair_open(pair, "two.example");
    serve(pair, CERT_ONE_ECDSA);
    tls_pair_refuse(pair, "one.example");
}

/* Without the intermediate that it sends along. */
static void a_server_may_be_all_that_is_trusted(struct tls_pair *pair)
{
    static const char end[] = "-----END CERTIFICATE-----\n";
    struct slice chain = test_chain(CERT_TWO_ECDSA);
    size_t len = (size_t)(strstr(chain.ptr, end) - chain.ptr) + strlen(end);
    assert_true(len < chain.len);
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = slice_of(chain.ptr, len)});
    serve(pair, CERT_TWO_ECDSA);
    tls_pair_open(pair, "two.example");
    tls_pair_refuse(pair, "one.example");
    serve(pair, CERT_ONE_ECDSA);
    tls_pair_refuse(pair, "one.example");
}

static void a_server_with_another_name_is_refused(struct tls_pair *pair)
{
    trust(pair, CERT_CA);
    serve(pair, CERT_ONE_ECDSA);
    tls_pair_refuse(pair, "other.example");
    tls_pair_refuse(pair, "a.b.wild.example");
    tls_pair_refuse(pair, "wild.example");
    tls_pair_refuse(pair, "127.0.0.2");
    tls_pair_refuse(pair, "::2");
}

static void a_server_of_another_authority_is_refused(struct tls_pair *pair)
{
    trust(pair, CERT_CA);
    serve(pair, CERT_FOREIGN);
    tls_pair_refuse(pair, "one.example");
    serve(pair, CERT_ONE_ECDSA);
    tls_pair_ask(pair, &(struct tls_client_config){0});
    tls_pair_refuse(pair, "one.example");
}

/* Also those of a file that the environment names are the system's. */
static void the_environment_may_name_authorities(struct tls_pair *pair)
{
    char path[] = "/tmp/test-tls-peers-XXXXXX";
    struct slice chain = test_chain(CERT_CA);
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, chain.ptr, chain.len), chain.len);
    close(file);
    setenv("SSL_CERT_FILE", path, 1);
    tls_pair_ask(pair, &(struct tls_client_config){0});
    unsetenv("SSL_CERT_FILE");
    unlink(path);
    serve(pair, CERT_ONE_ECDSA);
    tls_pair_open(pair, "one.example");
    serve(pair, CERT_TWO_ECDSA);
    tls_pair_open(pair, "two.example");
    tls_pair_refuse(pair, "one.example");
    serve(pair, CERT_FOREIGN);
    tls_pair_refuse(pair, "one.example");
}

static void certificates_hold_in_their_time_only(struct tls_pair *pair)
{
    trust(pair, CERT_CA);
    serve(pair, CERT_EXPIRED);
    tls_pair_refuse(pair, "one.example");
    assert_non_null(strstr(tls_error(&pair->at_client.session), "expired"));
    serve(pair, CERT_EARLY);
    tls_pair_refuse(pair, "one.example");
}

static void a_certificate_for_clients_is_no_servers(struct tls_pair *pair)
{
    trust(pair, CERT_CA);
    serve(pair, CERT_ALICE);
    tls_pair_refuse(pair, "a.example");
}

static void the_insecure_trust_anyone(struct tls_pair *pair)
{
    tls_pair_ask(pair, &(struct tls_client_config){.insecure = true});
    serve(pair, CERT_EXPIRED);
    tls_pair_open(pair, "other.example");
    assert_true(tls_side_info(&pair->at_client).has_peer);
}

/* --- Clients ---------------------------------------------------------------------------------- */

static struct tls_policy only(enum tls_version version)
{
    return (struct tls_policy){.version_min = version, .version_max = version};
}

static void demand(struct tls_pair *pair, enum tls_client_auth auth, enum tls_version version)
{
    enum test_certificate_id id = CERT_ONE_ECDSA;
    struct tls_server_config config = {
        .client_auth = auth, .client_authorities = test_chain(CERT_CA), .policy = only(version)};
    tls_pair_serve_with(pair, config, &id, 1);
}

static void show(struct tls_pair *pair, enum test_certificate_id id)
{
    struct tls_certificate *certificate = tls_load(pair->client_library, id);
    struct tls_client_config config = {.authorities = test_chain(CERT_CA),
                                       .certificate = certificate};
    tls_pair_ask(pair, &config);
    tls_certificate_release(certificate);
}

static void a_client_is_known_by_its_certificate(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        show(pair, CERT_ALICE);
        demand(pair, TLS_CLIENT_REQUIRED, version);
        tls_pair_open(pair, "one.example");
        assert_true(tls_side_info(&pair->at_server).has_peer);
        demand(pair, TLS_CLIENT_OPTIONAL, version);
        tls_pair_open(pair, "one.example");
        assert_true(tls_side_info(&pair->at_server).has_peer);
        demand(pair, TLS_CLIENT_NONE, version);
        tls_pair_open(pair, "one.example");
        assert_false(tls_side_info(&pair->at_server).has_peer);
    }
}

static void a_client_without_certificate_is_refused_if_one_is_required(struct tls_pair *pair)
{
    struct tls_peer peer;
    trust(pair, CERT_CA);
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        demand(pair, TLS_CLIENT_REQUIRED, version);
        tls_pair_refuse(pair, "one.example");
        assert_non_null(strstr(tls_error(&pair->at_client.session),
                               version == TLS_1_2 ? "handshake failure" : "certificate required"));
        demand(pair, TLS_CLIENT_OPTIONAL, version);
        tls_pair_open(pair, "one.example");
        assert_false(tls_side_info(&pair->at_server).has_peer);
        assert_int_equal(tls_describe_peer(&pair->at_server.session, &peer), -ENOENT);
    }
}

/* Whether it shows a certificate that the server has not asked for, or none. */
static void a_client_of_another_authority_is_not_known(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        show(pair, CERT_MALLORY);
        demand(pair, TLS_CLIENT_REQUIRED, version);
        tls_pair_refuse(pair, "one.example");
        show(pair, CERT_SERVER_ONLY);
        tls_pair_refuse(pair, "one.example");
    }
}

/* --- Descriptions ----------------------------------------------------------------------------- */

static void a_client_is_described(struct tls_pair *pair)
{
    struct tls_peer peer;
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        show(pair, CERT_ALICE);
        demand(pair, TLS_CLIENT_REQUIRED, version);
        tls_pair_open(pair, "one.example");
        assert_int_equal(tls_describe_peer(&pair->at_server.session, &peer), 0);
        assert_string_equal(peer.subject, "CN=alice,O=Example\\, Inc.");
        assert_string_equal(peer.issuer, "CN=Test CA,O=Example\\, Inc.");
        assert_string_equal(peer.serial, "abca");
        assert_string_equal(peer.names, "DNS:a.example, URI:spiffe://example/alice, "
                                        "email:alice@example.com, IP:10.0.0.1");
        assert_int_equal(strlen(peer.fingerprint), 64);
        tls_peer_free(&peer);
    }
}

static void a_fingerprint_is_that_of_the_certificate(struct tls_pair *pair)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[2 * EVP_MAX_MD_SIZE + 1];
    unsigned len;
    struct tls_peer peer;
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    assert_int_equal(tls_describe_peer(&pair->at_client.session, &peer), 0);
    X509_digest(test_certificate(CERT_ONE_ECDSA)->x509, EVP_sha256(), digest, &len);
    for (unsigned i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(peer.fingerprint, text);
    assert_string_equal(peer.names, "DNS:one.example, DNS:*.wild.example, IP:127.0.0.1, IP:::1");
    tls_peer_free(&peer);
}

static const struct tls_case cases[] = {
    TLS_CASE(a_good_server_is_trusted),
    TLS_CASE(an_intermediate_may_be_all_that_is_trusted),
    TLS_CASE(a_server_may_be_all_that_is_trusted),
    TLS_CASE(a_server_with_another_name_is_refused),
    TLS_CASE(a_server_of_another_authority_is_refused),
    TLS_CASE(the_environment_may_name_authorities),
    TLS_CASE(certificates_hold_in_their_time_only),
    TLS_CASE(a_certificate_for_clients_is_no_servers),
    TLS_CASE(the_insecure_trust_anyone),
    TLS_CASE(a_client_is_known_by_its_certificate),
    TLS_CASE(a_client_without_certificate_is_refused_if_one_is_required),
    TLS_CASE(a_client_of_another_authority_is_not_known),
    TLS_CASE(a_client_is_described),
    TLS_CASE(a_fingerprint_is_that_of_the_certificate),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
