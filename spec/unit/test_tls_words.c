/* What sessions say, of failures and of names, in the same words whatever the libraries. */
#include "support/tls_pair.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Failures --------------------------------------------------------------------------------- */

static const char *const h2[] = {"h2", NULL};
static const char *const h3[] = {"h3", NULL};

static struct tls_policy only(enum tls_version version)
{
    return (struct tls_policy){.version_min = version, .version_max = version};
}

static void serve(struct tls_pair *pair, struct tls_server_config config,
                  enum test_certificate_id id)
{
    if (config.client_auth != TLS_CLIENT_NONE)
        config.client_authorities = test_chain(CERT_CA);
    tls_pair_serve_with(pair, config, &id, 1);
}

static void ask(struct tls_pair *pair, struct tls_policy policy, struct tls_certificate *own)
{
    tls_pair_ask(pair, &(struct tls_client_config){.policy = policy,
                                                   .authorities = test_chain(CERT_CA),
                                                   .certificate = own});
}

static void show(struct tls_pair *pair, struct tls_policy policy, enum test_certificate_id id)
{
    struct tls_certificate *own = tls_load(pair->client_library, id);
    ask(pair, policy, own);
    tls_certificate_release(own);
}

static void assert_words(struct tls_pair *pair, const char *name, const char *server,
                         const char *client)
{
    tls_pair_refuse(pair, name);
    assert_string_equal(tls_error(&pair->at_server.session), server);
    assert_string_equal(tls_error(&pair->at_client.session), client);
}

static void of_versions(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        serve(pair, (struct tls_server_config){.policy = only(version)}, CERT_ONE_ECDSA);
        ask(pair, only(TLS_1_2 + TLS_1_3 - version), NULL);
        assert_words(pair, "one.example", "unsupported protocol",
                     "alert from the peer: protocol version");
    }
}

static void of_ciphers(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        struct tls_policy policy = only(version);
        policy.cipher_count = 1;
        policy.ciphers[0] = TLS_AES256_GCM;
        serve(pair, (struct tls_server_config){.policy = policy}, CERT_ONE_ECDSA);
        policy.ciphers[0] = TLS_AES128_GCM;
        ask(pair, policy, NULL);
        assert_words(pair, "one.example", "no shared cipher",
                     "alert from the peer: handshake failure");
    }
}

static void of_protocols(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        struct tls_policy policy = only(version);
        policy.alpn = h2;
        serve(pair, (struct tls_server_config){.policy = policy}, CERT_ONE_ECDSA);
        policy.alpn = h3;
        ask(pair, policy, NULL);
        assert_words(pair, "one.example", "the client speaks no protocol that is served here",
                     "alert from the peer: no application protocol");
    }
}

static void of_names(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        serve(pair, (struct tls_server_config){.strict_sni = true}, CERT_ONE_ECDSA);
        ask(pair, only(version), NULL);
        assert_words(pair, "No.example", "no certificate serves the name \"no.example\"",
                     "alert from the peer: unrecognized name");
        assert_words(pair, "127.0.0.1", "the client names no server",
                     "alert from the peer: unrecognized name");
    }
}

static void of_untrusted_servers(struct tls_pair *pair)
{
    static const struct {
        enum test_certificate_id id;
        const char *name;
        const char *client;
        const char *server;
    } rounds[] = {
        {CERT_EXPIRED, "one.example", "certificate has expired", "certificate expired"},
        {CERT_EARLY, "one.example", "certificate is not yet valid", "bad certificate"},
        {CERT_FOREIGN, "one.example", "unable to get local issuer certificate", "unknown CA"},
        {CERT_ONE_ECDSA, "two.example", "hostname mismatch", "bad certificate"},
        {CERT_ONE_ECDSA, "127.0.0.2", "IP address mismatch", "bad certificate"},
        {CERT_ALICE, "a.example", "unsuitable certificate purpose", "unsupported certificate"},
    };
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++)
        for (unsigned i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++) {
            char server[TLS_ERROR_MAX_BYTES];
            char client[TLS_ERROR_MAX_BYTES];
            serve(pair, (struct tls_server_config){0}, rounds[i].id);
            ask(pair, only(version), NULL);
            snprintf(server, sizeof(server), "alert from the peer: %s", rounds[i].server);
            snprintf(client, sizeof(client), "certificate verify failed: %s", rounds[i].client);
            assert_words(pair, rounds[i].name, server, client);
        }
}

static void of_untrusted_clients(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        serve(pair, (struct tls_server_config){.client_auth = TLS_CLIENT_REQUIRED}, CERT_ONE_ECDSA);
        ask(pair, only(version), NULL);
        assert_words(pair, "one.example", "peer did not return a certificate",
                     version == TLS_1_2 ? "alert from the peer: handshake failure"
                                        : "alert from the peer: certificate required");
        show(pair, only(version), CERT_SERVER_ONLY);
        assert_words(pair, "one.example",
                     "certificate verify failed: unsuitable certificate purpose",
                     "alert from the peer: unsupported certificate");
        serve(pair, (struct tls_server_config){.client_auth = TLS_CLIENT_OPTIONAL}, CERT_ONE_ECDSA);
        show(pair, only(version), CERT_MALLORY);
        assert_words(pair, "one.example",
                     "certificate verify failed: unable to get local issuer certificate",
                     "alert from the peer: unknown CA");
    }
}

static void assert_first_words(struct tls_pair *pair, struct slice bytes, const char *error)
{
    struct tls_session session;
    assert_int_equal(tls_accept(&session, pair->server), 0);
    session.input = bytes;
    assert_int_equal(tls_handshake(&session), -EPROTO);
    assert_string_equal(tls_error(&session), error);
    assert_int_equal(session.output.len, 0);
    tls_end(&session);
}

static void of_other_protocols(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    assert_first_words(pair, SLICE("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), "http request");
    assert_first_words(pair, SLICE("POST / HTTP/1.1\r\nhost: a\r\n\r\n"), "http request");
    assert_first_words(pair, SLICE("SSH-2.0-OpenSSH_9.2\r\n"), "wrong version number");
}

/* --- Names ------------------------------------------------------------------------------------ */

struct attribute {
    const char *name;
    int type;
    const char *value;
    int set; /* of X509_NAME_add_entry: -1 joins the one before it */
};

static const struct attribute plain_name[] = {
    {"C", MBSTRING_ASC, "DE", 0},
    {"ST", MBSTRING_UTF8, "Th\xc3\xbcringen", 0},
    {"O", MBSTRING_UTF8, "\xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x90\x8b", 0},
    {"emailAddress", MBSTRING_ASC, "a@b.example", 0},
    {"CN", MBSTRING_UTF8, "one", 0},
};

static const struct attribute odd_name[] = {
    {"DC", MBSTRING_ASC, "example", 0},
    {"UID", MBSTRING_UTF8, "u+1", 0},
    {"OU", MBSTRING_UTF8, "joined", -1},
    {"O", MBSTRING_UTF8, " #a,b;c\"d\\e<f>g=h ", 0},
    {"O", MBSTRING_UTF8, " ", 0},
    {"O", MBSTRING_UTF8, "tab\there\x7f", 0},
    {"O", V_ASN1_BMPSTRING, NULL, 0},
    {"O", V_ASN1_T61STRING, "caf\xe9", 0},
    {"1.2.3.4.5", MBSTRING_UTF8, "unknown", 0},
    {"serialNumber", MBSTRING_ASC, "7", 0},
    {"GN", MBSTRING_ASC, "Given", 0},
    {"SN", MBSTRING_ASC, "Sur", 0},
    {"street", MBSTRING_ASC, "Street 1", 0},
    {"organizationIdentifier", MBSTRING_ASC, "VAT", 0},
    {"jurisdictionC", MBSTRING_ASC, "DE", 0},
};

static X509_NAME *make_name(const struct attribute *attributes, size_t count)
{
    static const unsigned char wide[] = {0x00, 'B', 0x01, 0x41, 0x00, ',', 0x20, 0xac};
    X509_NAME *name = X509_NAME_new();
    for (size_t i = 0; i < count; i++) {
        const struct attribute *own = &attributes[i];
        const unsigned char *value = own->value ? (const unsigned char *)own->value : wide;
        int len = own->value ? (int)strlen(own->value) : (int)sizeof(wide);
        if (X509_NAME_add_entry_by_txt(name, own->name, own->type, value, len, -1, own->set) != 1)
            fail_msg("attribute %zu: %s", i, ERR_reason_error_string(ERR_peek_error()));
    }
    return name;
}

/* Alice's certificate under another name. */
static X509 *rename_alice(const struct attribute *attributes, size_t count)
{
    X509 *renamed = X509_dup(test_certificate(CERT_ALICE)->x509);
    X509_NAME *name = make_name(attributes, count);
    X509_set_subject_name(renamed, name);
    X509_NAME_free(name);
    assert_true(X509_sign(renamed, test_certificate(CERT_CA)->key, EVP_sha256()) > 0);
    return renamed;
}

static char *chain_of(X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes;
    PEM_write_bio_X509(bio, certificate);
    long len = BIO_get_mem_data(bio, &bytes);
    char *text = strndup(bytes, (size_t)len);
    BIO_free(bio);
    return text;
}

/* Read again, because encoding sorts what stands together. */
static char *words_of(const char *chain)
{
    BIO *bio = BIO_new_mem_buf(chain, -1);
    X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    const X509_NAME *name = X509_get_subject_name(certificate);
    char *bytes;
    BIO_free(bio);
    bio = BIO_new(BIO_s_mem());
    X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    long len = BIO_get_mem_data(bio, &bytes);
    char *text = len ? strndup(bytes, (size_t)len) : strdup("");
    BIO_free(bio);
    X509_free(certificate);
    return text;
}

static void show_chain(struct tls_pair *pair, struct slice chain)
{
    char *error;
    struct tls_certificate_config config = {.chain = chain, .key = test_key(CERT_ALICE)};
    struct tls_certificate *own = tls_certificate_load(pair->client_library, &config, &error);
    if (!own)
        fail_msg("%s", error);
    ask(pair, (struct tls_policy){0}, own);
    tls_certificate_release(own);
}

static void assert_subject(struct tls_pair *pair, const struct attribute *attributes, size_t count)
{
    struct tls_peer peer;
    X509 *renamed = rename_alice(attributes, count);
    char *chain = chain_of(renamed);
    char *expected = words_of(chain);
    serve(pair, (struct tls_server_config){.client_auth = TLS_CLIENT_REQUIRED}, CERT_ONE_ECDSA);
    show_chain(pair, slice_from_cstr(chain));
    tls_pair_open(pair, "one.example");
    assert_int_equal(tls_describe_peer(&pair->at_server.session, &peer), 0);
    assert_string_equal(peer.subject, expected);
    tls_peer_free(&peer);
    free(expected);
    free(chain);
    X509_free(renamed);
}

static void of_subjects(struct tls_pair *pair)
{
    assert_subject(pair, plain_name, sizeof(plain_name) / sizeof(plain_name[0]));
    assert_subject(pair, odd_name, sizeof(odd_name) / sizeof(odd_name[0]));
    assert_subject(pair, NULL, 0);
}

static const struct tls_case cases[] = {
    TLS_CASE(of_versions),        TLS_CASE(of_ciphers),           TLS_CASE(of_protocols),
    TLS_CASE(of_names),           TLS_CASE(of_untrusted_servers), TLS_CASE(of_untrusted_clients),
    TLS_CASE(of_other_protocols), TLS_CASE(of_subjects),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
