/* Picking peers: every rule's proportions, and who is passed over. */
#include "proxy/balance.h"

#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { PEERS = 3, PICKS = 6000 };

static struct io *io;
static struct peer peers[PEERS];
static struct upstream_peer entries[PEERS];
static struct balancer balancer;
static struct request request;
static struct arena arena;
static uint64_t tried_words;
static struct tried tried;

static int setup(void **state)
{
    (void)state;
    memset(peers, 0, sizeof(peers));
    memset(&request, 0, sizeof(request));
    arena_init(&arena);
    headers_init(&request.headers, &arena);
    tried_words = 0;
    tried.words = &tried_words;
    for (unsigned i = 0; i < PEERS; i++) {
        peers[i].io = io;
        list_init(&peers[i].thrift);
        entries[i] = (struct upstream_peer){
            .peer = &peers[i], .weight = 1, .hash = (i + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    }
    balancer = (struct balancer){.peers = entries, .count = PEERS, .random = 1};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void use(enum balance rule, uint32_t a, uint32_t b, uint32_t c)
{
    balancer.rule = rule;
    entries[0].weight = a;
    entries[1].weight = b;
    entries[2].weight = c;
    balancer.weighted = a != b || b != c;
}

static int pick(unsigned connections_max)
{
    bool full;
    return balance_pick(&balancer, &request, &tried, connections_max, &full);
}

static void count_picks(unsigned counts[PEERS])
{
    memset(counts, 0, PEERS * sizeof(*counts));
    for (unsigned i = 0; i < PICKS; i++) {
        int index = pick(0);
        assert_in_range(index, 0, PEERS - 1);
        counts[index]++;
    }
}

static void take_down(unsigned index)
{
    peers[index].down_until_ms = INT64_MAX;
}

static void turns_are_taken(void **state)
{
    (void)state;
    use(BALANCE_ROUND_ROBIN, 1, 1, 1);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(pick(0), i % 3);
}

static void weighted_turns_keep_proportions_and_spread(void **state)
{
    (void)state;
    unsigned counts[PEERS];
    use(BALANCE_ROUND_ROBIN, 5, 1, 1);
    int picks[7];
    for (unsigned i = 0; i < 7; i++)
        picks[i] = pick(0);
    assert_int_equal(picks[0], 0);
    assert_true(picks[2] != picks[3] || picks[3] != picks[4]); /* not five in a row */
    count_picks(counts);
    assert_in_range(counts[0], PICKS * 5 / 7 - 5, PICKS * 5 / 7 + 5);
}

static void the_least_loaded_is_picked(void **state)
{
    (void)state;
    use(BALANCE_LEAST_CONN, 1, 1, 1);
    peers[0].active = 5;
    peers[1].active = 2;
    peers[2].active = 4;
    assert_int_equal(pick(0), 1);
    use(BALANCE_LEAST_CONN, 10, 1, 1);
    assert_int_equal(pick(0), 0); /* 5/10 is less than 2/1 */
}

static void random_picks_are_spread(void **state)
{
    (void)state;
    unsigned counts[PEERS];
    use(BALANCE_RANDOM, 1, 1, 1);
    count_picks(counts);
    for (unsigned i = 0; i < PEERS; i++)
        assert_in_range(counts[i], PICKS / 3 - 300, PICKS / 3 + 300);
}

static void a_key_stays_with_its_peer_and_only_its_own_move(void **state)
{
    (void)state;
    enum { KEYS = 999 };
    int home[KEYS];
    char keys[KEYS][8];
    unsigned counts[PEERS] = {0};
    use(BALANCE_HASH, 1, 1, 1);
    balancer.hash_header = "x-key";
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof(keys[i]), "%u", i);
        headers_set(&request.headers, SLICE("X-Key"), slice_from_cstr(keys[i]));
        home[i] = pick(0);
        assert_int_equal(pick(0), home[i]);
        counts[home[i]]++;
    }
    for (unsigned i = 0; i < PEERS; i++)
        assert_in_range(counts[i], KEYS / 3 - 100, KEYS / 3 + 100);
    take_down(1);
    for (unsigned i = 0; i < KEYS; i++) {
        headers_set(&request.headers, SLICE("X-Key"), slice_from_cstr(keys[i]));
        int now = pick(0);
        assert_int_not_equal(now, 1);
        assert_true(home[i] == 1 || now == home[i]);
    }
}

static const enum balance rules[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM,
                                     BALANCE_HASH};

static void who_was_tried_or_is_down_is_passed_over(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        for (uint32_t weight = 1; weight < 3; weight++) {
            setup(NULL);
            use(rules[i], weight, 1, 1);
            take_down(0);
            tried_words = 1 << 1;
            for (unsigned j = 0; j < 20; j++)
                assert_int_equal(pick(0), 2);
            arena_fini(&arena);
        }
    }
    setup(NULL);
}

static void where_all_are_down_one_is_tried_all_the_same(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        use(rules[i], 1, 1, 1);
        for (unsigned j = 0; j < PEERS; j++)
            take_down(j);
        tried_words = 1;
        int index = pick(0);
        assert_true(index == 1 || index == 2);
        tried_words = 7;
        assert_int_equal(pick(0), -1);
    }
}

static void a_peer_without_room_is_passed_over(void **state)
{
    (void)state;
    bool full = false;
    use(BALANCE_ROUND_ROBIN, 1, 1, 1);
    peers[0].open = peers[1].open = 4;
    peers[1].idle_count = 1; /* one of its connections is free */
    for (unsigned i = 0; i < 6; i++)
        assert_int_not_equal(pick(4), 0);
    peers[1].idle_count = 0;
    peers[2].open = 4;
    assert_int_equal(balance_pick(&balancer, &request, &tried, 4, &full), -1);
    assert_true(full);
}

/* To wait for one that works is better than to try one that does not. */
static void a_peer_without_room_is_preferred_to_one_that_is_down(void **state)
{
    (void)state;
    static const enum balance rules[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM,
                                         BALANCE_HASH};
    use(BALANCE_ROUND_ROBIN, 1, 1, 1);
    for (unsigned i = 0; i < 4; i++) {
        bool full = false;
        balancer.rule = rules[i];
        peers[0].open = 4;
        peers[0].down_until_ms = 0;
        take_down(1);
        take_down(2);
        assert_int_equal(balance_pick(&balancer, &request, &tried, 4, &full), -1);
        assert_true(full);
        take_down(0); /* all are: those with room are as good as any */
        assert_in_range(pick(4), 1, 2);
    }
}

/* Whoever picks at random or by key, a peer of weight 2 gets twice what one of weight 1 does. */
static void weights_are_shares(void **state)
{
    (void)state;
    static const enum balance random_rules[] = {BALANCE_RANDOM, BALANCE_HASH};
    balancer.hash_header = "x-key";
    for (unsigned i = 0; i < 2; i++) {
        static const uint32_t weights[][PEERS] = {{1, 2, 1}, {1, 1, 10}, {1000, 500, 500}};
        for (unsigned j = 0; j < 3; j++) {
            const uint32_t *weight = weights[j];
            unsigned counts[PEERS] = {0};
            use(random_rules[i], weight[0], weight[1], weight[2]);
            for (unsigned k = 0; k < PICKS; k++) {
                char key[16];
                snprintf(key, sizeof(key), "key %u", k);
                headers_set(&request.headers, SLICE("X-Key"), slice_from_cstr(key));
                counts[pick(0)]++;
            }
            for (unsigned k = 0; k < PEERS; k++) {
                unsigned share = PICKS * weight[k] / (weight[0] + weight[1] + weight[2]);
                assert_in_range(counts[k], share - 200, share + 200);
            }
        }
    }
}

/* A peer that is down is passed over without its neighbour getting its turns. */
static void turns_stay_even_without_a_peer(void **state)
{
    (void)state;
    for (uint32_t weight = 1; weight <= 7; weight += 6) {
        unsigned counts[PEERS];
        use(BALANCE_ROUND_ROBIN, weight, 1, 1);
        take_down(0);
        count_picks(counts);
        assert_int_equal(counts[0], 0);
        assert_int_equal(counts[1], counts[2]);
        peers[0].down_until_ms = 0;
        count_picks(counts);
        assert_in_range(counts[0], PICKS * weight / (weight + 2) - 5,
                        PICKS * weight / (weight + 2) + 5);
    }
}

static void idle_peers_take_turns_by_least_load(void **state)
{
    (void)state;
    unsigned counts[PEERS];
    use(BALANCE_LEAST_CONN, 1, 1, 1);
    count_picks(counts);
    for (unsigned i = 0; i < PEERS; i++)
        assert_int_equal(counts[i], PICKS / PEERS);
}

static void of_two_at_random_the_less_loaded_is_picked(void **state)
{
    (void)state;
    unsigned counts[PEERS];
    use(BALANCE_RANDOM, 1, 1, 1);
    peers[0].active = 100;
    count_picks(counts);
    assert_in_range(counts[0], 1, PICKS / PEERS / 2); /* only where both draws name it: 1 in 9 */
}

static void without_a_header_the_client_is_the_key(void **state)
{
    (void)state;
    const char *why = NULL;
    struct address clients[2];
    unsigned seen = 0;
    use(BALANCE_HASH, 1, 1, 1);
    assert_in_range(pick(0), 0, PEERS - 1); /* a request that came by no connection */
    for (unsigned i = 0; i < 50; i++) {
        for (unsigned port = 0; port < 2; port++) {
            char text[32];
            int len = snprintf(text, sizeof(text), "10.0.0.%u:%u", i, 1000 + port);
            assert_int_equal(address_parse(slice_of(text, (size_t)len), &clients[port], &why), 0);
        }
        request.remote = &clients[0];
        int home = pick(0);
        request.remote = &clients[1];
        assert_int_equal(pick(0), home);
        seen |= 1U << home;
    }
    assert_int_equal(seen, 7);
}

static void the_hundredth_peer_is_remembered_as_tried(void **state)
{
    (void)state;
    enum { MANY = 100 };
    static struct peer many_peers[MANY];
    static struct upstream_peer many[MANY];
    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        uint64_t words[2] = {UINT64_MAX, UINT64_MAX & ~(UINT64_C(1) << (MANY - 1 - 64))};
        struct tried all_but_last = {.words = words};
        bool full = true;
        for (unsigned j = 0; j < MANY; j++) {
            many_peers[j].io = io;
            many[j] = (struct upstream_peer){.peer = &many_peers[j], .weight = 1, .hash = j};
        }
        balancer = (struct balancer){.rule = rules[i], .peers = many, .count = MANY, .random = 1};
        assert_int_equal(balance_pick(&balancer, &request, &all_but_last, 0, &full), MANY - 1);
        words[1] = UINT64_MAX;
        assert_int_equal(balance_pick(&balancer, &request, &all_but_last, 5, &full), -1);
        assert_false(full); /* all were tried: no wait for room would help */
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(turns_are_taken),
        TEST(weighted_turns_keep_proportions_and_spread),
        TEST(the_least_loaded_is_picked),
        TEST(random_picks_are_spread),
        TEST(a_key_stays_with_its_peer_and_only_its_own_move),
        TEST(who_was_tried_or_is_down_is_passed_over),
        TEST(where_all_are_down_one_is_tried_all_the_same),
        TEST(a_peer_without_room_is_passed_over),
        TEST(a_peer_without_room_is_preferred_to_one_that_is_down),
        TEST(weights_are_shares),
        TEST(turns_stay_even_without_a_peer),
        TEST(idle_peers_take_turns_by_least_load),
        TEST(of_two_at_random_the_less_loaded_is_picked),
        TEST(without_a_header_the_client_is_the_key),
        TEST(the_hundredth_peer_is_remembered_as_tried),
    };
    struct io_options options = {.kind = IO_KIND_EPOLL};
    if (io_create(&io, &options) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_destroy(io);
    return failed;
}
