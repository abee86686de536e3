/* Sets of prefixes: their text, what they contain, compared with a list, and what they cost. */
#include "net/cidr.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 88172645463325252ULL;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dULL;
}

static struct cidr_set *set_of(const char *const *texts)
{
    struct cidr_builder builder = {0};
    for (; *texts; texts++) {
        struct cidr_prefix prefix;
        const char *why = NULL;
        assert_int_equal(cidr_parse(slice_from_cstr(*texts), &prefix, &why), 0);
        assert_int_equal(cidr_builder_add(&builder, &prefix), 0);
    }
    struct cidr_set *set = cidr_set_create(&builder);
    assert_non_null(set);
    cidr_builder_fini(&builder);
    return set;
}

#define SET(...) set_of((const char *const[]){__VA_ARGS__, NULL})

static int contains(const struct cidr_set *set, const char *ip)
{
    return cidr_set_contains_text(set, slice_from_cstr(ip));
}

static void contains_what_its_prefixes_cover(void **state)
{
    (void)state;
    struct cidr_set *set =
        SET("10.0.0.0/8", "192.0.2.1", "192.0.2.128/25", "2001:db8::/32", "2001:db9::1");
    assert_int_equal(contains(set, "10.0.0.0"), 1);
    assert_int_equal(contains(set, "10.255.255.255"), 1);
    assert_int_equal(contains(set, "11.0.0.0"), 0);
    assert_int_equal(contains(set, "9.255.255.255"), 0);
    assert_int_equal(contains(set, "192.0.2.1"), 1);
    assert_int_equal(contains(set, "192.0.2.0"), 0);
    assert_int_equal(contains(set, "192.0.2.2"), 0);
    assert_int_equal(contains(set, "192.0.2.127"), 0);
    assert_int_equal(contains(set, "192.0.2.128"), 1);
    assert_int_equal(contains(set, "2001:db8:ffff::1"), 1);
    assert_int_equal(contains(set, "2001:db9::1"), 1);
    assert_int_equal(contains(set, "2001:db9::2"), 0);
    assert_int_equal(contains(set, "::1"), 0);
    assert_int_equal(contains(set, "unix:"), 0);
    assert_int_equal(contains(set, "10.0.0"), -EINVAL);
    assert_int_equal(contains(set, ""), -EINVAL);
    assert_int_equal(contains(set, "10.0.0.0/8"), -EINVAL);
    cidr_set_destroy(set);
}

static void keeps_families_apart_but_knows_mapped_addresses(void **state)
{
    (void)state;
    struct cidr_set *set = SET("::/0");
    assert_int_equal(contains(set, "2001:db8::1"), 1);
    assert_int_equal(contains(set, "127.0.0.1"), 0);
    assert_int_equal(contains(set, "::ffff:127.0.0.1"), 0);
    cidr_set_destroy(set);
    set = SET("10.0.0.0/8", "::ffff:192.0.2.0/120");
    assert_int_equal(contains(set, "::ffff:10.1.2.3"), 1);
    assert_int_equal(contains(set, "192.0.2.255"), 1);
    assert_int_equal(contains(set, "192.0.3.0"), 0);
    assert_int_equal(contains(set, "::10.1.2.3"), 0);
    cidr_set_destroy(set);
}

static void knows_nothing_and_everything(void **state)
{
    (void)state;
    struct cidr_set *set = set_of((const char *const[]){NULL});
    assert_int_equal(contains(set, "127.0.0.1"), 0);
    assert_int_equal(contains(set, "::1"), 0);
    assert_int_equal(cidr_set_count(set), 0);
    cidr_set_destroy(set);
    set = SET("0.0.0.0/0", "127.0.0.1", "::1", "unix:");
    assert_int_equal(contains(set, "255.255.255.255"), 1);
    assert_int_equal(contains(set, "::1"), 1);
    assert_int_equal(contains(set, "::2"), 0);
    assert_int_equal(contains(set, "unix:"), 1);
    assert_int_equal(cidr_set_count(set), 3);
    cidr_set_destroy(set);
}

static void takes_addresses_of_sockets(void **state)
{
    (void)state;
    struct cidr_set *set = SET("127.0.0.0/8", "unix:", "2001:db8::/32");
    const char *const texts[] = {"127.0.0.1:80",     "[::ffff:127.0.0.1]:80",
                                 "[2001:db8::1]:80", "unix:/run/x",
                                 "[::1]:80",         "192.0.2.1:80"};
    for (unsigned i = 0; i < 6; i++) {
        struct address address;
        const char *why;
        assert_int_equal(address_parse(slice_from_cstr(texts[i]), &address, &why), 0);
        assert_int_equal(cidr_set_contains(set, &address), i < 4);
    }
    struct address none = {.len = 0};
    assert_false(cidr_set_contains(set, &none));
    cidr_set_destroy(set);
}

static void merges_neighbours_and_drops_what_is_covered(void **state)
{
    (void)state;
    struct cidr_set *set = SET("10.0.0.0/25", "10.0.1.0/24", "10.0.0.128/26", "10.0.0.192/26",
                               "10.0.0.77", "10.0.0.77", "10.0.2.0/24");
    assert_int_equal(cidr_set_count(set), 2); /* 10.0.0.0/23 and 10.0.2.0/24 */
    assert_int_equal(contains(set, "10.0.2.255"), 1);
    assert_int_equal(contains(set, "10.0.3.0"), 0);
    cidr_set_destroy(set);
}

static void masks_bits_behind_the_prefix_and_tells(void **state)
{
    (void)state;
    struct cidr_prefix prefix;
    const char *why;
    assert_int_equal(cidr_parse(SLICE("10.1.2.3/8"), &prefix, &why), 0);
    assert_true(prefix.masked);
    assert_int_equal(prefix.bits[0], 10ULL << 56);
    assert_int_equal(cidr_parse(SLICE("2001:db8::1/32"), &prefix, &why), 0);
    assert_true(prefix.masked);
    assert_int_equal(prefix.bits[1], 0);
    assert_int_equal(cidr_parse(SLICE("10.0.0.0/8"), &prefix, &why), 0);
    assert_false(prefix.masked);
}

static void says_what_is_wrong_with_a_text(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"", "no IP address"},
        {"/8", "no IP address"},
        {"10.0.0.0/", "no length"},
        {"10.0.0.0/0008", "no length"},
        {"10.0.0.0/8 ", "no number"},
        {"10.0.0.0/-1", "no number"},
        {"10.0.0.0/33", "more than 32 bits"},
        {"2001:db8::/129", "more than 128 bits"},
        {"10.0.0/8", "no IP address"},
        {"010.0.0.1", "no IP address"},
        {"example.org", "no IP address"},
        {"fe80::1%eth0", "no IP address"},
        {"[::1]", "no IP address"},
        {"10.0.0.1:80", "no IP address"},
        {"unix:/run/x", "no IP address"},
        {"::ffff:10.0.0.0/95", "reaches beyond"},
    };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct cidr_prefix prefix;
        const char *why = "";
        assert_int_equal(cidr_parse(slice_from_cstr(wrong[i][0]), &prefix, &why), -EINVAL);
        assert_non_null(strstr(why, wrong[i][1]));
    }
}

/* --- Against a list --------------------------------------------------------------------------- */

/* Close to each other, so that prefixes nest, touch and share long beginnings. */
static struct cidr_prefix random_prefix(void)
{
    static const uint64_t beginnings[] = {0, 0x20010db800000000ULL, 0xfe80000000000000ULL};
    struct cidr_prefix prefix = {.family = random64() & 1 ? CIDR_V6 : CIDR_V4};
    if (prefix.family == CIDR_V4) {
        prefix.len = (uint8_t)(random64() % 50 ? 1 + random64() % 32 : random64() % 33);
        prefix.bits[0] = (random64() & 0xc0f0f1ffULL) << 32;
    } else {
        prefix.len = (uint8_t)(1 + random64() % 128);
        prefix.bits[0] = beginnings[random64() % 3] | (random64() & 0x8000000000070003ULL);
        prefix.bits[1] = random64() & 0xf0000000000001ffULL;
    }
    uint64_t masks[2] = {
        prefix.len >= 64 ? UINT64_MAX : ~(prefix.len ? UINT64_MAX >> prefix.len : UINT64_MAX),
        prefix.len > 64 ? (prefix.len == 128 ? UINT64_MAX : ~(UINT64_MAX >> (prefix.len - 64)))
                        : 0};
    prefix.bits[0] &= masks[0];
    prefix.bits[1] &= masks[1];
    return prefix;
}

static struct address address_of(const uint64_t bits[2], unsigned family)
{
    struct address address = {0};
    uint64_t big[2] = {htobe64(bits[0]), htobe64(bits[1])};
    if (family == CIDR_V4) {
        address.v4.sin_family = AF_INET;
        address.len = sizeof(address.v4);
        memcpy(&address.v4.sin_addr, big, 4);
    } else {
        address.v6.sin6_family = AF_INET6;
        address.len = sizeof(address.v6);
        memcpy(&address.v6.sin6_addr, big, 16);
    }
    return address;
}

static bool bit(const uint64_t bits[2], unsigned at)
{
    return bits[at / 64] >> (63 - at % 64) & 1;
}

static bool list_contains(const struct cidr_prefix *list, unsigned count, const uint64_t bits[2],
                          unsigned family)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned same = 0;
        while (same < list[i].len && bit(list[i].bits, same) == bit(bits, same))
            same++;
        if (list[i].family == family && same == list[i].len)
            return true;
    }
    return false;
}

static void agrees_with_a_list(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        struct cidr_prefix list[64];
        struct cidr_builder builder = {0};
        unsigned count = (unsigned)(random64() % (round % 2 ? 4 : 64));
        for (unsigned i = 0; i < count; i++) {
            list[i] = random_prefix();
            cidr_builder_add(&builder, &list[i]);
        }
        struct cidr_set *set = cidr_set_create(&builder);
        cidr_builder_fini(&builder);
        for (unsigned i = 0; i < 60; i++) {
            struct cidr_prefix probe = count && i % 2 ? list[random64() % count] : random_prefix();
            unsigned flipped = (unsigned)(random64() % (probe.family == CIDR_V4 ? 32 : 128));
            if (i % 3)
                probe.bits[flipped / 64] ^= 1ULL << (63 - flipped % 64);
            struct address address = address_of(probe.bits, probe.family);
            assert_int_equal(cidr_set_contains(set, &address),
                             list_contains(list, count, probe.bits, probe.family));
        }
        cidr_set_destroy(set);
    }
}

/* --- A million -------------------------------------------------------------------------------- */

static void expect_million(unsigned family, size_t bytes_max)
{
    enum { COUNT = 1000000 };
    struct cidr_builder builder = {0};
    struct address *probes = malloc(1024 * sizeof(*probes));
    for (unsigned i = 0; i < COUNT; i++) {
        struct cidr_prefix prefix = {.family = (uint8_t)family};
        prefix.len = (uint8_t)(family == CIDR_V4 ? 20 + random64() % 13 : 32 + random64() % 97);
        prefix.bits[0] = random64();
        if (prefix.len <= 64)
            prefix.bits[0] &= UINT64_MAX << (64 - prefix.len);
        else
            prefix.bits[1] = random64() & UINT64_MAX << (128 - prefix.len);
        cidr_builder_add(&builder, &prefix);
        if (i < 1024)
            probes[i] = address_of(prefix.bits, family);
    }
    int64_t started_us = clock_now_us();
    struct cidr_set *set = cidr_set_create(&builder);
    int64_t built_us = clock_now_us();
    cidr_builder_fini(&builder);
    unsigned found = 0;
    for (unsigned i = 0; i < 1024 * 100; i++) {
        struct address address = probes[i * 2654435761U % 1024];
        if (i % 2) /* elsewhere */
            address.v6.sin6_addr.s6_addr32[0] = address.v4.sin_addr.s_addr += i;
        found += cidr_set_contains(set, &address);
    }
    int64_t looked_up_us = clock_now_us();
    printf("%s: %zu of 1,000,000 prefixes in %.1f MB, built in %d ms, %d ns for a look-up\n",
           family == CIDR_V4 ? "IPv4" : "IPv6", cidr_set_count(set),
           (double)cidr_set_bytes(set) / 1e6, (int)((built_us - started_us) / 1000),
           (int)((looked_up_us - built_us) * 10 / 1024));
    assert_true(found >= 1024 * 50);
    assert_true(cidr_set_bytes(set) < bytes_max);
    struct cidr_set *copy = cidr_set_copy(slice_of((const char *)set, cidr_set_bytes(set)));
    for (unsigned i = 0; i < 1024; i++)
        assert_true(cidr_set_contains(copy, &probes[i]));
    cidr_set_destroy(copy);
    cidr_set_destroy(set);
    free(probes);
}

static void holds_a_million_in_little_memory(void **state)
{
    (void)state;
    expect_million(CIDR_V4, 20000000);
    expect_million(CIDR_V6, 30000000);
}

static void copies_only_what_is_a_set(void **state)
{
    (void)state;
    struct cidr_set *set = SET("10.0.0.0/8");
    size_t len = cidr_set_bytes(set);
    assert_null(cidr_set_copy(slice_of((const char *)set, len - 1)));
    assert_null(cidr_set_copy(SLICE("10.0.0.0/8")));
    char *other = malloc(len);
    memcpy(other, set, len);
    assert_true(cidr_is_block(slice_of(other, len)));
    memset(other, 'x', 8);
    assert_null(cidr_set_copy(slice_of(other, len)));
    free(other);
    cidr_set_destroy(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contains_what_its_prefixes_cover),
        cmocka_unit_test(keeps_families_apart_but_knows_mapped_addresses),
        cmocka_unit_test(knows_nothing_and_everything),
        cmocka_unit_test(takes_addresses_of_sockets),
        cmocka_unit_test(merges_neighbours_and_drops_what_is_covered),
        cmocka_unit_test(masks_bits_behind_the_prefix_and_tells),
        cmocka_unit_test(says_what_is_wrong_with_a_text),
        cmocka_unit_test(agrees_with_a_list),
        cmocka_unit_test(holds_a_million_in_little_memory),
        cmocka_unit_test(copies_only_what_is_a_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
