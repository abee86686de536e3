/* Socket addresses from and to text. */
#include "net/address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect_round_trip(const char *text, const char *formatted, const char *host)
{
    struct address address;
    const char *why = NULL;
    char out[ADDRESS_TEXT_MAX];
    if (address_parse(slice_from_cstr(text), &address, &why) != 0)
        fail_msg("%s: %s", text, why);
    assert_int_equal(address_format(&address, out), strlen(formatted));
    assert_string_equal(out, formatted);
    assert_int_equal(address_format_host(&address, out), strlen(host));
    assert_string_equal(out, host);
}

static void numeric_addresses_survive_a_round_trip(void **state)
{
    (void)state;
    expect_round_trip("127.0.0.1:80", "127.0.0.1:80", "127.0.0.1");
    expect_round_trip("0.0.0.0:0", "0.0.0.0:0", "0.0.0.0");
    expect_round_trip("255.255.255.255:65535", "255.255.255.255:65535", "255.255.255.255");
    expect_round_trip("[::1]:443", "[::1]:443", "::1");
    expect_round_trip("[0:0:0:0:0:0:0:0]:1", "[::]:1", "::");
    expect_round_trip("[2001:db8::A]:8080", "[2001:db8::a]:8080", "2001:db8::a");
    expect_round_trip("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1");
    expect_round_trip("unix:/run/site.sock", "unix:/run/site.sock", "unix:");
    expect_round_trip("unix:relative", "unix:relative", "unix:");
    expect_round_trip("unix:@name", "unix:@name", "unix:");
}

static void expect_refusal(const char *text, const char *phrase)
{
    struct address address;
    const char *why = NULL;
    assert_int_equal(address_parse(slice_from_cstr(text), &address, &why), -EINVAL);
    assert_non_null(why);
    if (strcmp(why, phrase) != 0)
        fail_msg("\"%s\" %s, not: %s", text, why, phrase);
}

static void malformed_addresses_are_refused_with_a_reason(void **state)
{
    (void)state;
    const char *no_port = "has no port";
    expect_refusal("", no_port);
    expect_refusal("127.0.0.1", no_port);
    expect_refusal("127.0.0.1:", no_port);
    expect_refusal("[::1]", no_port);
    expect_refusal("[::1]80", no_port);
    expect_refusal("[::1]:", no_port);
    expect_refusal(":80", "has no host");
    expect_refusal("[]:80", "has no host");
    expect_refusal("[::1:80", "lacks the \"]\"");
    expect_refusal("::1:80", "is an IPv6 address without brackets (\"[::1]:80\")");
    expect_refusal("127.0.0.1:65536", "has a port above 65535");
    expect_refusal("127.0.0.1:000080", "has a port above 65535");
    expect_refusal("127.0.0.1:99999999999999", "has a port above 65535");
    expect_refusal("127.0.0.1:+80", "has a port that is no number");
    expect_refusal("127.0.0.1:-1", "has a port that is no number");
    expect_refusal("127.0.0.1: 80", "has a port that is no number");
    expect_refusal("127.0.0.1:80 ", "has a port that is no number");
    expect_refusal("127.0.0.1:http", "has a port that is no number");
    expect_refusal("127.0.0.256:80", "has a malformed IPv4 address");
    expect_refusal("127.1:80", "has a malformed IPv4 address");
    expect_refusal("1:80", "has a malformed IPv4 address");
    expect_refusal("[127.0.0.1]:80", "has no IPv6 address between the brackets");
    expect_refusal("[::g]:80", "has no IPv6 address between the brackets");
    expect_refusal("[1:2:3:4:5:6:7:8:9]:80", "has no IPv6 address between the brackets");
    expect_refusal("exa mple.com:80", "has a malformed host name");
    expect_refusal("a..b:80", "has a malformed host name");
    expect_refusal(".a:80", "has a malformed host name");
    expect_refusal("http://a:80", "is an IPv6 address without brackets (\"[::1]:80\")");
    expect_refusal("example.com:80", "is a host name where a numeric address is needed");
    expect_refusal("unix:", "has no path");
    expect_refusal("unix:@", "has no path");
}

static void a_nul_never_cuts_an_address_short(void **state)
{
    (void)state;
    struct address address;
    const char *why;
    assert_int_equal(address_parse(SLICE("127.0.0.1\0x:80"), &address, &why), -EINVAL);
    assert_int_equal(address_parse(SLICE("unix:/a\0b"), &address, &why), -EINVAL);
    assert_int_equal(address_parse(SLICE("unix:\0b"), &address, &why), -EINVAL);
}

static void local_paths_have_a_bound(void **state)
{
    (void)state;
    char text[5 + 108 + 1];
    struct address address;
    const char *why;
    memset(text, 'x', sizeof(text));
    memcpy(text, "unix:", 5);
    assert_int_equal(address_parse(slice_of(text, 5 + 107), &address, &why), 0);
    char out[ADDRESS_TEXT_MAX];
    assert_int_equal(address_format(&address, out), 5 + 107);
    assert_int_equal(address_parse(slice_of(text, 5 + 108), &address, &why), -EINVAL);
    assert_string_equal(why, "has a path of more than 107 bytes");
}

static void names_are_split_from_their_port(void **state)
{
    (void)state;
    struct slice host;
    uint16_t port;
    const char *why;
    assert_int_equal(address_split(SLICE("origin.example.com:8080"), &host, &port, &why), 0);
    assert_true(slice_equal(host, SLICE("origin.example.com")));
    assert_int_equal(port, 8080);
    assert_int_equal(address_split(SLICE("localhost:1"), &host, &port, &why), 0);
    assert_int_equal(address_split(SLICE("under_score-1.example.:1"), &host, &port, &why), 0);
    assert_int_equal(address_split(SLICE("[::1]:2"), &host, &port, &why), 0);
    assert_true(slice_equal(host, SLICE("::1")));
    assert_int_equal(port, 2);
    assert_int_equal(address_split(SLICE("10.0.0.1:3"), &host, &port, &why), 0);
    assert_int_equal(address_split(SLICE("10.0.0.300:3"), &host, &port, &why), -EINVAL);
    assert_int_equal(address_split(SLICE("a.b.c.4:3"), &host, &port, &why), -EINVAL);
    char label[64 + 2 + 1];
    memset(label, 'a', sizeof(label));
    memcpy(label + 64, ":1", 3);
    assert_int_equal(address_split(slice_of(label, 66), &host, &port, &why), -EINVAL);
    assert_int_equal(address_split(slice_of(label + 1, 65), &host, &port, &why), 0);
}

static struct address parsed(const char *text)
{
    struct address address;
    const char *why;
    assert_int_equal(address_parse(slice_from_cstr(text), &address, &why), 0);
    return address;
}

static void equality_is_by_value(void **state)
{
    (void)state;
    const char *all[] = {"127.0.0.1:80", "127.0.0.1:81", "127.0.0.2:80", "[::1]:80",
                         "[::1]:81",     "unix:/a",      "unix:@a",      "unix:/ab"};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++) {
            struct address a = parsed(all[i]), b = parsed(all[j]);
            assert_int_equal(address_equal(&a, &b), i == j);
        }
    }
    struct address none = {0}, some = parsed("127.0.0.1:80");
    assert_true(address_equal(&none, &none));
    assert_false(address_equal(&none, &some));
}

static void ports_are_told(void **state)
{
    (void)state;
    struct address v4 = parsed("127.0.0.1:80"), v6 = parsed("[::1]:443"), local = parsed("unix:/a");
    struct address none = {0};
    assert_int_equal(address_port(&v4), 80);
    assert_int_equal(address_port(&v6), 443);
    assert_int_equal(address_port(&local), 0);
    assert_int_equal(address_port(&none), 0);
}

/* As getpeername gives it for a client of a local socket; and hostile abstract names. */
static void odd_local_names_are_printable(void **state)
{
    (void)state;
    char out[ADDRESS_TEXT_MAX];
    struct address none = {0}, unnamed = {.local.sun_family = AF_UNIX, .len = sizeof(sa_family_t)};
    assert_int_equal(address_format(&none, out), 0);
    assert_string_equal(out, "");
    assert_int_equal(address_format(&unnamed, out), 5);
    assert_string_equal(out, "unix:");
    struct address binary = {.local.sun_family = AF_UNIX, .len = sizeof(struct sockaddr_un)};
    memset(binary.local.sun_path, '\n', sizeof(binary.local.sun_path));
    assert_int_equal(address_format(&binary, out), 5 + sizeof(binary.local.sun_path));
    assert_null(strchr(out, '\n'));
    binary.local.sun_path[0] = '\0';
    assert_int_equal(address_format(&binary, out), 5 + sizeof(binary.local.sun_path));
    assert_int_equal(out[5], '@');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numeric_addresses_survive_a_round_trip),
        cmocka_unit_test(malformed_addresses_are_refused_with_a_reason),
        cmocka_unit_test(a_nul_never_cuts_an_address_short),
        cmocka_unit_test(local_paths_have_a_bound),
        cmocka_unit_test(names_are_split_from_their_port),
        cmocka_unit_test(equality_is_by_value),
        cmocka_unit_test(ports_are_told),
        cmocka_unit_test(odd_local_names_are_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
