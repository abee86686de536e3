/* What a client speaks, by its first bytes, cut at every byte. */
#include "l4/detect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct beginning {
    struct slice text;
    size_t decided_at; /* bytes after which it is known */
};

/* Neither too early nor too late, and nothing that comes later changes it. */
static void assert_decided(const struct beginning *list, unsigned count, enum l4_protocol protocol)
{
    for (unsigned i = 0; i < count; i++) {
        const struct beginning *one = &list[i];
        for (size_t len = 0; len <= one->text.len; len++) {
            enum l4_protocol found = l4_detect(slice_of(one->text.ptr, len));
            assert_int_equal(found, len < one->decided_at ? L4_PROTOCOL_UNDECIDED : protocol);
        }
        assert_true(one->decided_at <= one->text.len && one->decided_at <= L4_DETECT_MAX_BYTES);
    }
}

#define ASSERT_DECIDED(list, protocol)                                                             \
    assert_decided((list), sizeof(list) / sizeof((list)[0]), (protocol))

static void tls_is_a_hello_in_a_record(void **state)
{
    (void)state;
    static const struct beginning list[] = {
        {SLICE_INIT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 6},
        {SLICE_INIT("\x16\x03\x03\x00\x01\x01\x16\x03\x03\x00\x01"), 6},
        {SLICE_INIT("\x16\x03\x01\x40\x00\x01\xff\xff\xff\xff"), 6}, /* too large, yet no other */
    };
    ASSERT_DECIDED(list, L4_PROTOCOL_TLS);
}

static void http_has_a_method_and_a_target(void **state)
{
    (void)state;
    static const struct beginning list[] = {
        {SLICE_INIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 5},
        {SLICE_INIT("POST /a"), 6},
        {SLICE_INIT("VERSION-CONTROL /a"), 17},
        {SLICE_INIT("P /"), 3},
        {SLICE_INIT("PRI /"), 5},
        {SLICE_INIT("PRI * HTTP/1.1\r\n"), 12},
        {SLICE_INIT("PRI * HTTP/2.0\r\nHost: a\r\n"), 17},
        {SLICE_INIT("OPTIONS * HTTP/1.1\r\n"), 10},
        {SLICE_INIT("GET http://a/ HTTP/1.1\r\n"), 11},
        {SLICE_INIT("GET HTTPS://a/ HTTP/1.1\r\n"), 12},
        {SLICE_INIT("CONNECT a:443 HTTP/1.1\r\n"), 9},
    };
    ASSERT_DECIDED(list, L4_PROTOCOL_HTTP);
}

static void the_preface_is_http2(void **state)
{
    (void)state;
    static const struct beginning list[] = {
        {SLICE_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4"), 24},
    };
    ASSERT_DECIDED(list, L4_PROTOCOL_H2C);
}

static void all_else_is_other(void **state)
{
    (void)state;
    static const struct beginning list[] = {
        {SLICE_INIT("\0"), 1},
        {SLICE_INIT("\x16\x03\x01\x00\x00"), 5},
        {SLICE_INIT("\x16\x02"), 2},
        {SLICE_INIT("\x15\x03\x01"), 1},
        {SLICE_INIT("\x80\x2e\x01"), 1}, /* SSLv2 */
        {SLICE_INIT("\x10\x1a\0\4MQTT"), 1},
        {SLICE_INIT("\0\0\0\x08\x04\xd2\x16\x2f"), 1}, /* PostgreSQL asks for TLS */
        {SLICE_INIT("SSH-2.0-OpenSSH_9.2p1 Debian-2"), 5},
        {SLICE_INIT("EHLO relay.example"), 6},
        {SLICE_INIT("EHLO http.example"), 10},
        {SLICE_INIT("INVITE sip:a@b SIP/2.0"), 8},
        {SLICE_INIT("OPTIONS *x"), 10},
        {SLICE_INIT("PING\r\n"), 5},
        {SLICE_INIT("*1\r\n$4\r\nPING\r\n"), 1},
        {SLICE_INIT("get key\r\n"), 1},
        {SLICE_INIT("\r\nGET / HTTP/1.1\r\n"), 1},
        {SLICE_INIT(" GET /"), 1},
        {SLICE_INIT("-GET /"), 1},
        {SLICE_INIT("ABCDEFGHIJKLMNOPQRSTUVWXYZ /"), 25},
    };
    ASSERT_DECIDED(list, L4_PROTOCOL_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tls_is_a_hello_in_a_record),
        cmocka_unit_test(http_has_a_method_and_a_target),
        cmocka_unit_test(the_preface_is_http2),
        cmocka_unit_test(all_else_is_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
