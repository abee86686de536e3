/* Sessions that are resumed by tickets, and those that must not be. The clock is the test's. */
#include "support/tls_pair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- The clock -------------------------------------------------------------------------------- */

enum { HOUR_S = 3600 };

static time_t ahead_s;

/* In place of libc's, also for the libraries. */
__attribute__((visibility("default"))) time_t time(time_t *timer)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += ahead_s;
    if (timer)
        *timer = now.tv_sec;
    return now.tv_sec;
}

/* --- Pairs ------------------------------------------------------------------------------------ */

static const uint8_t secret[TLS_TICKET_SECRET_BYTES] = {1, 2, 3};
static const uint8_t other_secret[TLS_TICKET_SECRET_BYTES] = {1, 2, 4};
static const char *const protocols[] = {"h2", "http/1.1", NULL};

static struct tls_policy only(enum tls_version version)
{
    return (struct tls_policy){.version_min = version, .version_max = version, .alpn = protocols};
}

static void serve(struct tls_pair *pair, const uint8_t *with)
{
    static const enum test_certificate_id ids[] = {CERT_ONE_ECDSA, CERT_TWO_ECDSA};
    struct tls_server_config config = {.ticket_secret = with, .policy.alpn = protocols};
    tls_pair_serve_with(pair, config, ids, 2);
}

static void prepare(struct tls_pair *pair, enum tls_version version)
{
    ahead_s = 0;
    pair->remembers = true;
    tls_memory_free(&pair->memory);
    serve(pair, secret);
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(CERT_CA),
                                                   .policy = only(version)});
}

/* Opens, and reads the tickets that come behind the handshake. Returns whether it was resumed. */
static bool visit(struct tls_pair *pair, const char *name)
{
    char byte;
    tls_pair_open(pair, name);
    assert_int_equal(tls_side_read(&pair->at_client, &byte, 1), -EAGAIN);
    bool resumed = tls_side_info(&pair->at_client).resumed;
    assert_int_equal(tls_side_info(&pair->at_server).resumed, resumed);
    return resumed;
}

/* --- Resumed ---------------------------------------------------------------------------------- */

static void a_second_session_is_resumed(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        assert_false(visit(pair, "one.example"));
        for (unsigned i = 0; i < 3; i++) {
            assert_true(visit(pair, "one.example"));
            assert_string_equal(tls_side_info(&pair->at_server).name, "one.example");
            assert_string_equal(tls_side_info(&pair->at_client).name, "one.example");
            assert_string_equal(tls_side_info(&pair->at_server).alpn, "h2");
            assert_true(tls_side_info(&pair->at_client).has_peer);
        }
    }
}

static void a_resumed_session_carries_data(struct tls_pair *pair)
{
    char bytes[10];
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        visit(pair, "one.example");
        assert_true(visit(pair, "one.example"));
        assert_int_equal(tls_write(&pair->at_server.session, "data", 4, 100), 0);
        tls_pair_carry(pair);
        assert_int_equal(tls_side_read(&pair->at_client, bytes, sizeof(bytes)), 4);
    }
}

static void another_server_with_the_secret_resumes(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        assert_false(visit(pair, "one.example"));
        serve(pair, secret);
        assert_true(visit(pair, "one.example"));
    }
}

static void a_ticket_holds_for_hours(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        visit(pair, "one.example");
        ahead_s = 3 * HOUR_S;
        assert_true(visit(pair, "one.example"));
    }
    ahead_s = 0;
}

/* --- Not resumed ------------------------------------------------------------------------------ */

static void a_server_with_another_secret_does_not_resume(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        visit(pair, "one.example");
        serve(pair, other_secret);
        assert_false(visit(pair, "one.example"));
        assert_true(visit(pair, "one.example"));
    }
}

static void a_server_without_secret_gives_no_tickets(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        serve(pair, NULL);
        assert_false(visit(pair, "one.example"));
        assert_false(visit(pair, "one.example"));
    }
}

static void a_client_without_memory_does_not_resume(struct tls_pair *pair)
{
    prepare(pair, TLS_1_3);
    pair->remembers = false;
    assert_false(visit(pair, "one.example"));
    assert_false(visit(pair, "one.example"));
}

static void an_old_ticket_is_not_taken(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        visit(pair, "one.example");
        ahead_s = 25 * HOUR_S;
        assert_false(visit(pair, "one.example"));
        assert_true(visit(pair, "one.example"));
    }
    ahead_s = 0;
}

/* Each session gives a new ticket, but not without end. (GnuTLS has no place in a ticket for the
 * time of the full handshake.) */
static void tickets_for_tickets_end_after_a_day(struct tls_pair *pair)
{
    if (pair->server_library == TLS_GNUTLS)
        return;
    prepare(pair, TLS_1_3);
    visit(pair, "one.example");
    for (unsigned i = 1; i < 9; i++) {
        ahead_s = i * 3 * HOUR_S - 60;
        assert_true(visit(pair, "one.example"));
    }
    ahead_s = 25 * HOUR_S;
    assert_false(visit(pair, "one.example"));
    ahead_s = 0;
}

/* RFC 6066, 3 forbids it in TLS 1.2; RFC 8446, 4.6.1 leaves it to servers in 1.3. */
static void a_session_is_resumed_under_the_same_name_only(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        visit(pair, "one.example");
        assert_false(visit(pair, "two.example"));
        assert_true(visit(pair, "two.example"));
        assert_true(visit(pair, "TWO.example"));
    }
}

/* As after a reload that allows TLS 1.3 again, or among listeners with different versions. */
static void a_session_of_1_2_does_not_hinder_one_of_1_3(struct tls_pair *pair)
{
    static const enum test_certificate_id one = CERT_ONE_ECDSA;
    struct tls_server_config config = {.ticket_secret = secret, .policy = only(TLS_1_2)};
    prepare(pair, TLS_1_3);
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(CERT_CA)});
    tls_pair_serve_with(pair, config, &one, 1);
    assert_false(visit(pair, "one.example"));
    serve(pair, secret);
    assert_false(visit(pair, "one.example"));
    assert_string_equal(tls_side_info(&pair->at_server).version, "TLSv1.3");
    assert_true(visit(pair, "one.example"));
    tls_pair_serve_with(pair, config, &one, 1);
    assert_false(visit(pair, "one.example"));
    assert_string_equal(tls_side_info(&pair->at_server).version, "TLSv1.2");
}

static void a_memory_of_nonsense_is_ignored(struct tls_pair *pair)
{
    prepare(pair, TLS_1_3);
    visit(pair, "one.example");
    for (size_t i = 0; i < pair->memory.len; i += 7)
        pair->memory.bytes[i] ^= 0x55;
    visit(pair, "one.example");
    pair->memory.len = 3;
    assert_false(visit(pair, "one.example"));
}

static void a_memory_of_another_library_is_ignored(struct tls_pair *pair)
{
    prepare(pair, TLS_1_3);
    visit(pair, "one.example");
    pair->memory.library = pair->client_library == TLS_OPENSSL ? TLS_GNUTLS : TLS_OPENSSL;
    assert_false(visit(pair, "one.example"));
    assert_true(visit(pair, "one.example"));
}

/* Whoever verifies must not believe what was remembered without. */
static void what_the_insecure_remember_is_not_trusted(struct tls_pair *pair)
{
    enum test_certificate_id foreign = CERT_FOREIGN;
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        tls_pair_serve_with(pair, (struct tls_server_config){.ticket_secret = secret}, &foreign, 1);
        tls_pair_ask(pair, &(struct tls_client_config){.insecure = true, .policy = only(version)});
        visit(pair, "one.example");
        assert_true(visit(pair, "one.example"));
        tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(CERT_CA),
                                                       .policy = only(version)});
        tls_pair_refuse(pair, "one.example");
    }
}

/* --- Clients that are known ------------------------------------------------------------------- */

static void demand(struct tls_pair *pair, enum tls_client_auth auth,
                   enum test_certificate_id authority)
{
    enum test_certificate_id id = CERT_ONE_ECDSA;
    struct tls_server_config config = {
        .ticket_secret = secret, .client_auth = auth, .client_authorities = test_chain(authority)};
    tls_pair_serve_with(pair, config, &id, 1);
}

static void prepare_alice(struct tls_pair *pair, enum tls_version version)
{
    struct tls_certificate *alice = tls_load(pair->client_library, CERT_ALICE);
    prepare(pair, version);
    demand(pair, TLS_CLIENT_REQUIRED, CERT_CA);
    tls_pair_ask(pair, &(struct tls_client_config){.authorities = test_chain(CERT_CA),
                                                   .policy = only(version),
                                                   .certificate = alice});
    tls_certificate_release(alice);
}

static void a_resumed_client_is_still_known(struct tls_pair *pair)
{
    struct tls_peer peer;
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare_alice(pair, version);
        assert_false(visit(pair, "one.example"));
        assert_true(visit(pair, "one.example"));
        assert_true(tls_side_info(&pair->at_server).has_peer);
        assert_int_equal(tls_describe_peer(&pair->at_server.session, &peer), 0);
        assert_string_equal(peer.subject, "CN=alice,O=Example\\, Inc.");
        tls_peer_free(&peer);
    }
}

static void who_was_not_asked_is_not_resumed_where_all_are(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare(pair, version);
        visit(pair, "one.example");
        demand(pair, TLS_CLIENT_REQUIRED, CERT_CA);
        tls_pair_refuse(pair, "one.example");
    }
}

static void who_is_known_is_not_resumed_where_others_are_trusted(struct tls_pair *pair)
{
    for (unsigned version = TLS_1_2; version <= TLS_1_3; version++) {
        prepare_alice(pair, version);
        visit(pair, "one.example");
        demand(pair, TLS_CLIENT_REQUIRED, CERT_OTHER_CA);
        tls_pair_refuse(pair, "one.example");
    }
}

static const struct tls_case cases[] = {
    TLS_CASE(a_second_session_is_resumed),
    TLS_CASE(a_resumed_session_carries_data),
    TLS_CASE(another_server_with_the_secret_resumes),
    TLS_CASE(a_ticket_holds_for_hours),
    TLS_CASE(a_server_with_another_secret_does_not_resume),
    TLS_CASE(a_server_without_secret_gives_no_tickets),
    TLS_CASE(a_client_without_memory_does_not_resume),
    TLS_CASE(an_old_ticket_is_not_taken),
    TLS_CASE(tickets_for_tickets_end_after_a_day),
    TLS_CASE(a_session_is_resumed_under_the_same_name_only),
    TLS_CASE(a_session_of_1_2_does_not_hinder_one_of_1_3),
    TLS_CASE(a_memory_of_nonsense_is_ignored),
    TLS_CASE(a_memory_of_another_library_is_ignored),
    TLS_CASE(what_the_insecure_remember_is_not_trusted),
    TLS_CASE(a_resumed_client_is_still_known),
    TLS_CASE(who_was_not_asked_is_not_resumed_where_all_are),
    TLS_CASE(who_is_known_is_not_resumed_where_others_are_trusted),
};

int main(void)
{
    return tls_cases_run(cases, sizeof(cases) / sizeof(cases[0]));
}
