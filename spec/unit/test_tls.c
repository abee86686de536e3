/* Handshakes and data between two sides of TLS, each of either library. */
#include "support/tls_pair.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* --- Handshakes ------------------------------------------------------------------------------- */

static const enum test_certificate_id one[] = {CERT_ONE_ECDSA};

static struct tls_policy only(enum tls_version version)
{
    return (struct tls_policy){.version_min = version, .version_max = version};
}

static void offer(struct tls_pair *pair, struct tls_policy policy)
{
    tls_pair_ask(pair,
                 &(struct tls_client_config){.policy = policy, .authorities = test_chain(CERT_CA)});
}

static void serve(struct tls_pair *pair, struct tls_policy policy)
{
    tls_pair_serve_with(pair, (struct tls_server_config){.policy = policy}, one, 1);
}

static void the_newest_version_is_agreed_on(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    assert_string_equal(tls_side_info(&pair->at_server).version, "TLSv1.3");
    assert_string_equal(tls_side_info(&pair->at_client).version, "TLSv1.3");
    assert_string_equal(tls_side_info(&pair->at_client).cipher, "TLS_AES_128_GCM_SHA256");
    assert_string_equal(tls_side_info(&pair->at_server).cipher, "TLS_AES_128_GCM_SHA256");
}

static void version_1_2_is_spoken_with_those_who_know_no_other(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    offer(pair, only(TLS_1_2));
    tls_pair_open(pair, "one.example");
    assert_string_equal(tls_side_info(&pair->at_server).version, "TLSv1.2");
    assert_string_equal(tls_side_info(&pair->at_client).version, "TLSv1.2");
    assert_string_equal(tls_side_info(&pair->at_server).cipher,
                        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    serve(pair, only(TLS_1_2));
    offer(pair, (struct tls_policy){0});
    tls_pair_open(pair, "one.example");
    assert_string_equal(tls_side_info(&pair->at_client).version, "TLSv1.2");
}

static void sides_without_a_common_version_part(struct tls_pair *pair)
{
    serve(pair, only(TLS_1_3));
    offer(pair, only(TLS_1_2));
    tls_pair_refuse(pair, "one.example");
}

static void bytes_may_come_alone(struct tls_pair *pair)
{
    pair->portion = 1;
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    offer(pair, only(TLS_1_2));
    tls_pair_open(pair, "one.example");
}

static void the_server_chooses_the_cipher(struct tls_pair *pair)
{
    static const char *const names[2][TLS_CIPHER_COUNT] = {
        {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
         "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
        {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"},
    };
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++)
        for (unsigned i = 0; i < TLS_CIPHER_COUNT; i++) {
            struct tls_policy policy = only(version);
            policy.ciphers[0] = (enum tls_cipher)i;
            policy.ciphers[1] = (enum tls_cipher)((i + 1) % TLS_CIPHER_COUNT);
            policy.cipher_count = 2;
            serve(pair, policy);
            offer(pair, only(version));
            tls_pair_open(pair, "one.example");
            assert_string_equal(tls_side_info(&pair->at_client).cipher,
                                names[version - TLS_1_2][i]);
        }
}

static void a_client_that_wants_chacha_first_gets_it(struct tls_pair *pair)
{
    serve(pair, (struct tls_policy){0});
    offer(pair,
          (struct tls_policy){.ciphers = {TLS_CHACHA20_POLY1305, TLS_AES128_GCM, TLS_AES256_GCM},
                              .cipher_count = 3});
    tls_pair_open(pair, "one.example");
    assert_string_equal(tls_side_info(&pair->at_client).cipher, "TLS_CHACHA20_POLY1305_SHA256");
}

static void sides_without_a_common_cipher_part(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        struct tls_policy policy = only(version);
        policy.cipher_count = 1;
        policy.ciphers[0] = TLS_AES256_GCM;
        serve(pair, policy);
        policy.ciphers[0] = TLS_AES128_GCM;
        offer(pair, policy);
        tls_pair_refuse(pair, "one.example");
    }
}

/* The client's first guess is not what the server speaks: there are two hellos in TLS 1.3. */
static void every_group_can_be_used(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++)
        for (unsigned i = 0; i < TLS_GROUP_COUNT; i++) {
            struct tls_policy policy = only(version);
            policy.groups[0] = (enum tls_group)i;
            policy.group_count = 1;
            serve(pair, policy);
            offer(pair, only(version));
            tls_pair_open(pair, "one.example");
            assert_string_equal(tls_side_info(&pair->at_server).name, "one.example");
        }
}

/* Does the server ask for another hello? Its first message has a random that says so (RFC 8446,
 * 4.1.3). */
static bool wants_second_hello(struct tls_pair *pair)
{
    enum { RANDOM_AT = 11 }; /* behind record and message headers and the version */
    struct tls_session client;
    struct tls_session server;
    assert_int_equal(tls_connect(&client, pair->client, "one.example", NULL), 0);
    assert_int_equal(tls_accept(&server, pair->server), 0);
    assert_int_equal(tls_handshake(&client), -EAGAIN);
    server.input = slice_of(client.output.bytes, client.output.len);
    assert_int_equal(tls_handshake(&server), -EAGAIN);
    assert_true(server.output.len > RANDOM_AT + 32);
    bool wants = memcmp(server.output.bytes + RANDOM_AT, "\xcf\x21\xad\x74", 4) == 0;
    tls_end(&client);
    tls_end(&server);
    return wants;
}

/* A second hello would cost a round trip. */
static void a_share_that_was_sent_is_used(struct tls_pair *pair)
{
    static const enum tls_group guesses[] = {TLS_SECP256R1, TLS_SECP384R1, TLS_X25519};
    for (unsigned i = 0; i < sizeof(guesses) / sizeof(guesses[0]); i++) {
        struct tls_policy policy = only(TLS_1_3);
        policy.groups[0] = guesses[i];
        policy.groups[1] = guesses[i] == TLS_X25519 ? TLS_SECP256R1 : TLS_X25519;
        policy.group_count = 2;
        serve(pair, (struct tls_policy){0});
        offer(pair, policy);
        assert_false(wants_second_hello(pair));
        tls_pair_open(pair, "one.example");
    }
    serve(pair, (struct tls_policy){.groups = {TLS_SECP521R1}, .group_count = 1});
    offer(pair, only(TLS_1_3));
    assert_true(wants_second_hello(pair));
}

static void sides_without_a_common_group_part(struct tls_pair *pair)
{
    struct tls_policy policy = only(TLS_1_3);
    policy.group_count = 1;
    policy.groups[0] = TLS_SECP521R1;
    serve(pair, policy);
    policy.groups[0] = TLS_SECP256R1;
    offer(pair, policy);
    tls_pair_refuse(pair, "one.example");
}

/* --- ALPN ------------------------------------------------------------------------------------- */

static const char *const h2_first[] = {"h2", "http/1.1", NULL};
static const char *const h1_first[] = {"http/1.1", "h2", NULL};
static const char *const other[] = {"h3", "h", NULL};

static void shake_with_alpn(struct tls_pair *pair, const char *const *server,
                            const char *const *client, enum tls_version version)
{
    struct tls_policy policy = only(version);
    policy.alpn = server;
    serve(pair, policy);
    policy.alpn = client;
    offer(pair, policy);
}

static void assert_alpn(struct tls_pair *pair, const char *expected)
{
    tls_pair_open(pair, "one.example");
    assert_string_equal(tls_side_info(&pair->at_server).alpn, expected);
    assert_string_equal(tls_side_info(&pair->at_client).alpn, expected);
}

static void the_protocol_is_the_servers_most_wanted(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        shake_with_alpn(pair, h2_first, h1_first, version);
        assert_alpn(pair, "h2");
        shake_with_alpn(pair, h1_first, h2_first, version);
        assert_alpn(pair, "http/1.1");
    }
}

static void there_is_no_protocol_if_one_side_knows_none(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        shake_with_alpn(pair, h2_first, NULL, version);
        assert_alpn(pair, "");
        shake_with_alpn(pair, NULL, h2_first, version);
        assert_alpn(pair, "");
    }
}

/* RFC 7301, 3.2: no_application_protocol. */
static void clients_of_other_protocols_are_refused(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        shake_with_alpn(pair, h2_first, other, version);
        tls_pair_refuse(pair, "one.example");
        assert_non_null(strcasestr(tls_error(&pair->at_client.session), "application protocol"));
    }
}

/* --- Data ------------------------------------------------------------------------------------- */

enum { DATA_BYTES = 50000 };

static char data[DATA_BYTES];

static void fill(void)
{
    for (unsigned i = 0; i < DATA_BYTES; i++)
        data[i] = (char)(i * 7 + i / 251);
}

/* Lengths in the records' headers: what each costs beyond its data stays below 64 bytes. */
static void assert_records(const struct tls_output *output, size_t record)
{
    size_t at = 0;
    while (at < output->len) {
        const unsigned char *header = (const unsigned char *)output->bytes + at;
        size_t len = (size_t)header[3] << 8 | header[4];
        assert_true(len <= record + 64);
        at += 5 + len;
    }
    assert_int_equal(at, output->len);
}

static void send_all(struct tls_pair *pair, struct tls_side *from, struct tls_side *to,
                     size_t record, size_t size)
{
    static char got[DATA_BYTES];
    char buffer[5000];
    size_t len = 0;
    assert_int_equal(tls_write(&from->session, data, size, record), 0);
    assert_records(&from->session.output, record);
    tls_pair_carry(pair);
    for (ssize_t count; (count = tls_side_read(to, buffer, sizeof(buffer))) != -EAGAIN;) {
        assert_true(count > 0 && len + (size_t)count <= size);
        memcpy(got + len, buffer, (size_t)count);
        len += (size_t)count;
    }
    assert_int_equal(len, size);
    assert_memory_equal(got, data, size);
}

static void data_goes_both_ways_in_records_of_any_size(struct tls_pair *pair)
{
    static const struct {
        size_t record;
        size_t size;
    } rounds[] = {{1, 50}, {2, 101}, {1400, DATA_BYTES}, {4096, 8192}, {16384, DATA_BYTES}};
    fill();
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        tls_pair_prepare(pair);
        offer(pair, only(version));
        tls_pair_open(pair, "one.example");
        for (unsigned i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++) {
            send_all(pair, &pair->at_client, &pair->at_server, rounds[i].record, rounds[i].size);
            send_all(pair, &pair->at_server, &pair->at_client, rounds[i].record, rounds[i].size);
        }
    }
}

static void nothing_is_written_of_nothing(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    assert_int_equal(tls_write(&pair->at_client.session, NULL, 0, TLS_RECORD_MAX_BYTES), 0);
    assert_int_equal(pair->at_client.session.output.len, 0);
}

static void input_is_not_consumed_beyond_the_record_that_is_read(struct tls_pair *pair)
{
    char bytes[100];
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    assert_int_equal(tls_write(&pair->at_client.session, "first", 5, TLS_RECORD_MAX_BYTES), 0);
    size_t record = pair->at_client.session.output.len;
    assert_int_equal(tls_write(&pair->at_client.session, "second", 6, TLS_RECORD_MAX_BYTES), 0);
    size_t both = pair->at_client.session.output.len;
    tls_pair_carry(pair);
    assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), 5);
    assert_true(pair->at_server.inbox_len >= both - record);
    assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), 6);
    assert_int_equal(pair->at_server.inbox_len, 0);
}

/* --- Ends ------------------------------------------------------------------------------------- */

static void an_orderly_end_is_seen_and_the_other_way_stays_open(struct tls_pair *pair)
{
    char bytes[10];
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        tls_pair_prepare(pair);
        offer(pair, only(version));
        tls_pair_open(pair, "one.example");
        assert_int_equal(tls_write(&pair->at_client.session, "last", 4, 100), 0);
        tls_close(&pair->at_client.session);
        size_t len = pair->at_client.session.output.len;
        tls_close(&pair->at_client.session);
        assert_int_equal(pair->at_client.session.output.len, len);
        tls_pair_carry(pair);
        assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), 4);
        assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), 0);
        assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), 0);
        assert_int_equal(tls_write(&pair->at_server.session, "answer", 6, 100), 0);
        tls_close(&pair->at_server.session);
        tls_pair_carry(pair);
        assert_int_equal(tls_side_read(&pair->at_client, bytes, sizeof(bytes)), 6);
        assert_int_equal(tls_side_read(&pair->at_client, bytes, sizeof(bytes)), 0);
        assert_int_equal(pair->at_client.inbox_len, 0);
    }
}

static void a_truncated_stream_has_no_end(struct tls_pair *pair)
{
    char bytes[10];
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    assert_int_equal(tls_write(&pair->at_client.session, "all", 3, 100), 0);
    tls_pair_carry(pair);
    pair->at_server.inbox_len--;
    assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), -EAGAIN);
    assert_int_equal(tls_side_read(&pair->at_server, bytes, sizeof(bytes)), -EAGAIN);
}

static void closing_before_the_handshake_is_done_does_no_harm(struct tls_pair *pair)
{
    tls_pair_prepare(pair);
    tls_pair_begin(pair, "one.example");
    struct tls_session early;
    assert_int_equal(tls_accept(&early, pair->server), 0);
    tls_close(&early);
    tls_end(&early);
    assert_int_equal(tls_connect(&early, pair->client, "one.example", NULL), 0);
    assert_int_equal(tls_handshake(&early), -EAGAIN);
    tls_close(&early);
    tls_end(&early);
}

/* Records arrive in two parts, cut anywhere: also where the buffers are given back. */
static void records_may_be_cut_anywhere(struct tls_pair *pair)
{
    char bytes[10];
    tls_pair_prepare(pair);
    tls_pair_open(pair, "one.example");
    struct tls_session *client = &pair->at_client.session;
    struct tls_session *server = &pair->at_server.session;
    for (size_t cut = 0, len = 1; cut < len; cut++) {
        assert_int_equal(tls_write(client, "cut", 3, 100), 0);
        len = client->output.len;
        server->input = slice_of(client->output.bytes, cut);
        assert_int_equal(tls_read(server, bytes, sizeof(bytes)), -EAGAIN);
        assert_int_equal(server->input.len, 0);
        assert_int_equal(tls_read(server, bytes, sizeof(bytes)), -EAGAIN);
        server->input = slice_of(client->output.bytes + cut, len - cut);
        assert_int_equal(tls_read(server, bytes, sizeof(bytes)), 3);
        assert_memory_equal(bytes, "cut", 3);
        server->input = slice_of(NULL, 0);
        tls_output_release(&client->output);
    }
}

/* --- Memory ----------------------------------------------------------------------------------- */

static size_t allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* A buffer for records has 16 KiB and more; the rest of both sides is below 40 KiB. (Under ASan the
 * allocator says nothing, and nothing is proved.) */
static void idle_sessions_keep_no_buffers(struct tls_pair *pair)
{
    enum { MANY = 20, BOTH_MAX_BYTES = 40000 };
    static const uint8_t secret[TLS_TICKET_SECRET_BYTES];
    static struct tls_pair many[MANY];
    char bytes[10];
    tls_pair_serve_with(pair, (struct tls_server_config){.ticket_secret = secret}, one, 1);
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(CERT_CA)});
    tls_pair_open(pair, "one.example");
    size_t before = allocated();
    for (unsigned i = 0; i < MANY; i++) {
        many[i] = *pair;
        many[i].at_server = many[i].at_client = (struct tls_side){0};
        tls_pair_open(&many[i], "one.example");
        assert_int_equal(tls_side_read(&many[i].at_server, bytes, sizeof(bytes)), -EAGAIN);
        assert_int_equal(tls_side_read(&many[i].at_client, bytes, sizeof(bytes)), -EAGAIN);
    }
    size_t after = allocated();
    assert_true(after - before < (size_t)MANY * BOTH_MAX_BYTES);
    for (unsigned i = 0; i < MANY; i++) {
        many[i].server = NULL;
        many[i].client = NULL;
        tls_pair_end(&many[i]);
    }
}

static const struct tls_case cases[] = {
    TLS_CASE(the_newest_version_is_agreed_on),
    TLS_CASE(version_1_2_is_spoken_with_those_who_know_no_other),
    TLS_CASE(sides_without_a_common_version_part),
    TLS_CASE(bytes_may_come_alone),
    TLS_CASE(the_server_chooses_the_cipher),
    TLS_CASE(a_client_that_wants_chacha_first_gets_it),
    TLS_CASE(sides_without_a_common_cipher_part),
    TLS_CASE(every_group_can_be_used),
    TLS_CASE(a_share_that_was_sent_is_used),
    TLS_CASE(sides_without_a_common_group_part),
    TLS_CASE(the_protocol_is_the_servers_most_wanted),
    TLS_CASE(there_is_no_protocol_if_one_side_knows_none),
    TLS_CASE(clients_of_other_protocols_are_refused),
    TLS_CASE(data_goes_both_ways_in_records_of_any_size),
    TLS_CASE(nothing_is_written_of_nothing),
    TLS_CASE(input_is_not_consumed_beyond_the_record_that_is_read),
    TLS_CASE(an_orderly_end_is_seen_and_the_other_way_stays_open),
    TLS_CASE(a_truncated_stream_has_no_end),
    TLS_CASE(records_may_be_cut_anywhere),
    TLS_CASE(idle_sessions_keep_no_buffers),
    TLS_CASE(closing_before_the_handshake_is_done_does_no_harm),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
