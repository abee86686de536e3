/* Certificates and contexts that cannot be loaded: the message says what is wrong. */
#include "support/tls_pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The error must contain all of the words. */
static void assert_says(char *error, const char *first, const char *second)
{
    if (!error || !strstr(error, first) || !strstr(error, second))
        fail_msg("\"%s\" should say \"%s\" and \"%s\"", error, first, second);
    free(error);
}

static void refuse(const struct tls_pair *pair, struct tls_certificate_config config,
                   const char *first, const char *second)
{
    char *error = NULL;
    assert_null(tls_certificate_load(pair->server_library, &config, &error));
    assert_says(error, first, second);
}

static struct tls_certificate_config one(void)
{
    return (struct tls_certificate_config){.chain = test_chain(CERT_ONE_ECDSA),
                                           .key = test_key(CERT_ONE_ECDSA)};
}

static char *joined(struct slice a, struct slice b)
{
    char *text;
    int len = asprintf(&text, "%.*s%.*s", (int)a.len, a.ptr, (int)b.len, b.ptr);
    assert_true(len >= 0);
    return text;
}

/* --- Chains ----------------------------------------------------------------------------------- */

static void a_chain_must_have_a_certificate(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    config.chain = slice_of(NULL, 0);
    refuse(pair, config, "no certificate", "chain");
    config.chain = SLICE("hello\n");
    refuse(pair, config, "no certificate", "chain");
    config.chain = config.key;
    refuse(pair, config, "no certificate", "chain");
}

static void a_damaged_certificate_is_named_by_its_place(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    char *text = strdup(config.chain.ptr);
    text[100] = '!';
    config.chain = slice_from_cstr(text);
    refuse(pair, config, "certificate 1", "chain");
    free(text);
    text = joined(one().chain, SLICE("-----BEGIN CERTIFICATE-----\nMIIB\n"));
    config.chain = slice_from_cstr(text);
    refuse(pair, config, "certificate 2", "chain");
    free(text);
}

static void every_cut_of_a_chain_is_refused(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    size_t len = config.chain.len;
    for (size_t cut = 0; cut + 30 < len; cut += 13) {
        char *error = NULL;
        char *exact = malloc(cut + 1);
        memcpy(exact, one().chain.ptr, cut);
        config.chain = slice_of(exact, cut);
        assert_null(tls_certificate_load(pair->server_library, &config, &error));
        assert_non_null(error);
        free(error);
        free(exact);
    }
}

/* --- Keys ------------------------------------------------------------------------------------- */

static void a_key_must_be_there(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    config.key = slice_of(NULL, 0);
    refuse(pair, config, "no", "private key");
    config.key = config.chain;
    refuse(pair, config, "no", "private key");
}

static void a_damaged_key_is_refused(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    char *text = strdup(config.key.ptr);
    text[40] = text[41] = text[60] = 'A';
    text[80] = '!';
    config.key = slice_from_cstr(text);
    refuse(pair, config, "private key", "damaged");
    free(text);
}

static void an_encrypted_key_is_refused(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    char *text = test_encrypted_key(CERT_ONE_ECDSA);
    config.key = slice_from_cstr(text);
    refuse(pair, config, "private key", "encrypted");
    free(text);
}

static void a_key_must_belong_to_the_certificate(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    config.key = test_key(CERT_TWO_ECDSA);
    refuse(pair, config, "private key", "does not belong to the certificate");
    config.key = test_key(CERT_ONE_RSA);
    refuse(pair, config, "private key", "does not belong to the certificate");
}

static void a_weak_key_is_refused(struct tls_pair *pair)
{
    struct tls_certificate_config config = {.chain = test_chain(CERT_WEAK),
                                            .key = test_key(CERT_WEAK)};
    refuse(pair, config, "key", "small");
}

static void chain_and_key_may_stand_in_one_text(struct tls_pair *pair)
{
    char *error = NULL;
    char *text = joined(test_key(CERT_TWO_ECDSA), test_chain(CERT_TWO_ECDSA));
    struct slice both = slice_from_cstr(text);
    struct tls_certificate_config config = {.chain = both, .key = both};
    struct tls_certificate *certificate =
        tls_certificate_load(pair->server_library, &config, &error);
    assert_non_null(certificate);
    tls_certificate_release(certificate);
    free(text);
}

/* As "openssl ecparam -genkey" writes them. */
static void parameters_may_stand_before_a_key(struct tls_pair *pair)
{
    static const char parameters[] = "-----BEGIN EC PARAMETERS-----\n"
                                     "BggqhkjOPQMBBw==\n"
                                     "-----END EC PARAMETERS-----\n";
    char *error = NULL;
    struct tls_certificate_config config = one();
    char *text = joined(SLICE(parameters), config.key);
    config.key = slice_from_cstr(text);
    struct tls_certificate *certificate =
        tls_certificate_load(pair->server_library, &config, &error);
    assert_non_null(certificate);
    tls_certificate_release(certificate);
    free(text);
}

/* --- OCSP ------------------------------------------------------------------------------------- */

static void a_response_must_be_one_about_the_certificate(struct tls_pair *pair)
{
    struct tls_certificate_config config = one();
    config.ocsp = SLICE("nonsense");
    refuse(pair, config, "OCSP", "cannot be used");
    config.ocsp = test_ocsp_response(CERT_ONE_RSA, 3600);
    refuse(pair, config, "OCSP", "another certificate");
    free((char *)config.ocsp.ptr);
}

/* --- Contexts --------------------------------------------------------------------------------- */

static void authorities_of_clients_must_be_given(struct tls_pair *pair)
{
    char *error = NULL;
    struct tls_server_config config = {.client_auth = TLS_CLIENT_OPTIONAL};
    assert_null(tls_server_create(pair->server_library, &config, &error));
    assert_says(error, "no certificate", "client authorities");
    config.client_authorities = SLICE("-----BEGIN CERTIFICATE-----\nMIIB\n");
    assert_null(tls_server_create(pair->server_library, &config, &error));
    assert_says(error, "certificate 1", "client authorities");
}

static void authorities_of_servers_must_be_certificates(struct tls_pair *pair)
{
    char *error = NULL;
    struct tls_client_config config = {.authorities = SLICE("nonsense")};
    assert_null(tls_client_create(pair->client_library, &config, &error));
    assert_says(error, "no certificate", "authorities");
}

static const struct tls_case cases[] = {
    TLS_CASE(a_chain_must_have_a_certificate),
    TLS_CASE(a_damaged_certificate_is_named_by_its_place),
    TLS_CASE(every_cut_of_a_chain_is_refused),
    TLS_CASE(a_key_must_be_there),
    TLS_CASE(a_damaged_key_is_refused),
    TLS_CASE(an_encrypted_key_is_refused),
    TLS_CASE(a_key_must_belong_to_the_certificate),
    TLS_CASE(a_weak_key_is_refused),
    TLS_CASE(chain_and_key_may_stand_in_one_text),
    TLS_CASE(parameters_may_stand_before_a_key),
    TLS_CASE(a_response_must_be_one_about_the_certificate),
    TLS_CASE(authorities_of_clients_must_be_given),
    TLS_CASE(authorities_of_servers_must_be_certificates),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
