/* Headers of the PROXY protocol: what is accepted, what is refused, and that what is written reads
 * as what it was. */
#include "net/proxy_protocol.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(literal)                                                                             \
    (struct slice)                                                                                 \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }
#define ENDS4 "\xc0\x00\x02\x01\xc6\x33\x64\x07\x9c\x40\x01\xbb"

static struct address address_of(const char *text)
{
    struct address address;
    const char *why = "";
    if (address_parse(slice_from_cstr(text), &address, &why) != 0)
        fail_msg("%s: %s", text, why);
    return address;
}

static void expect_address(const struct address *address, const char *text)
{
    char out[ADDRESS_TEXT_MAX];
    address_format(address, out);
    assert_string_equal(out, text);
}

/* Parses with every byte beyond the end out of bounds (for ASan), cut anywhere: more is asked for
 * until the header is whole, and what follows it is not looked at. */
static struct proxy_header expect_header(struct slice bytes)
{
    static char *copy;
    struct proxy_header header;
    const char *why = "";
    for (size_t len = 0; len < bytes.len; len++) {
        char *cut = malloc(len + 1);
        memcpy(cut, bytes.ptr, len);
        int result = proxy_header_parse(slice_of(cut, len), &header, &why);
        if (result != 0)
            fail_msg("cut at %zu of %zu: %d, %s", len, bytes.len, result, why);
        free(cut);
    }
    free(copy);
    copy = malloc(bytes.len + 4); /* the header's slices point into it until the next call */
    memcpy(copy, bytes.ptr, bytes.len);
    memcpy(copy + bytes.len, "GET ", 4);
    int result = proxy_header_parse(slice_of(copy, bytes.len + 4), &header, &why);
    if (result != (int)bytes.len)
        fail_msg("%d instead of %zu: %s", result, bytes.len, why);
    return header;
}

static void expect_refusal(struct slice bytes, int error, const char *part)
{
    struct proxy_header header;
    const char *why = "";
    int result = proxy_header_parse(bytes, &header, &why);
    if (result != error)
        fail_msg("%.*s: %d instead of %d (%s)", (int)bytes.len, bytes.ptr, result, error, part);
    if (!strstr(why, part))
        fail_msg("\"%s\" is not said, but \"%s\"", part, why);
}

static void expect_text(struct slice found, const char *text)
{
    if (!text) {
        assert_null(found.ptr);
        return;
    }
    assert_int_equal(found.len, strlen(text));
    assert_memory_equal(found.ptr, text, found.len);
}

/* --- Version 1 -------------------------------------------------------------------------------- */

static void version_1_is_read(void **state)
{
    (void)state;
    struct proxy_header header =
        expect_header(BYTES("PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n"));
    assert_int_equal(header.version, 1);
    expect_address(&header.source, "192.0.2.1:40000");
    expect_address(&header.destination, "198.51.100.7:443");
    header = expect_header(BYTES("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"));
    expect_address(&header.source, "[2001:db8::1]:0");
    expect_address(&header.destination, "[::1]:65535");
    header = expect_header(BYTES("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 1 2\r\n"));
    expect_address(&header.source, "192.0.2.1:1");
    expect_address(&header.destination, "198.51.100.7:2");
}

static void version_1_may_know_nothing(void **state)
{
    (void)state;
    struct proxy_header header = expect_header(BYTES("PROXY UNKNOWN\r\n"));
    assert_int_equal(header.source.len, 0);
    assert_false(header.local);
    header = expect_header(BYTES("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"));
    assert_int_equal(header.source.len, 0);
    /* The longest that there may be: 107 bytes. */
    header = expect_header(BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                                 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"));
    assert_int_equal(header.source.len, 0);
}

static void version_1_is_strict(void **state)
{
    (void)state;
    static const char *const addresses[] = {
        "TCP4 192.0.2.256 198.51.100.7 1 2",
        "TCP4 192.0.2 198.51.100.7 1 2",
        "TCP4 192.0.02.1 198.51.100.7 1 2",
        "TCP4 2001:db8::1 ::1 1 2",
        "TCP6 192.0.2.1 198.51.100.7 1 2",
        "TCP4 192.0.2.1 ::1 1 2",
        "TCP4  192.0.2.1 198.51.100.7 1 2",
        "TCP4 192.0.2.1\t198.51.100.7 1 2",
        "TCP6 fe80::1%eth0 ::1 1 2",
        "TCP4",
        "TCP4 ",
        "TCP4 localhost 198.51.100.7 1 2",
    };
    static const char *const ports[] = {
        "TCP4 192.0.2.1 198.51.100.7 65536 2",  "TCP4 192.0.2.1 198.51.100.7 1 01",
        "TCP4 192.0.2.1 198.51.100.7 00 2",     "TCP4 192.0.2.1 198.51.100.7 -1 2",
        "TCP4 192.0.2.1 198.51.100.7 1",        "TCP4 192.0.2.1 198.51.100.7 1 ",
        "TCP4 192.0.2.1 198.51.100.7 1 2 ",     "TCP4 192.0.2.1 198.51.100.7 1 2 3",
        "TCP4 192.0.2.1 198.51.100.7 1  2",     "TCP4 192.0.2.1 198.51.100.7 1x 2",
        "TCP4 192.0.2.1 198.51.100.7 123456 2",
    };
    static const char *const protocols[] = {"tcp4 192.0.2.1 198.51.100.7 1 2", "UDP4 1 2", "",
                                            " TCP4 192.0.2.1 198.51.100.7 1 2", "UNKNOWNX"};
    char line[128];
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
        expect_refusal(
            slice_of(line, (size_t)snprintf(line, sizeof(line), "PROXY %s\r\n", addresses[i])),
            -EPROTO, "an address is malformed");
    for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++)
        expect_refusal(
            slice_of(line, (size_t)snprintf(line, sizeof(line), "PROXY %s\r\n", ports[i])), -EPROTO,
            "a port is malformed");
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
        expect_refusal(
            slice_of(line, (size_t)snprintf(line, sizeof(line), "PROXY %s\r\n", protocols[i])),
            -EPROTO, "none of TCP4");
    expect_refusal(BYTES("PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n"), -EPROTO, "CRLF");
    expect_refusal(BYTES("PROXY TCP4 192.0.2.1\0 198.51.100.7 1 2\r\n"), -EPROTO, "an address");
    expect_refusal(BYTES("PROXY \n"), -EPROTO, "CRLF");
}

static void lines_are_bounded(void **state)
{
    (void)state;
    char line[PROXY_HEADER_V1_MAX_BYTES + 2];
    struct proxy_header header;
    const char *why = "";
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    memcpy(line + PROXY_HEADER_V1_MAX_BYTES - 1, "\r\n", 2); /* one byte too many */
    assert_int_equal(
        proxy_header_parse(slice_of(line, PROXY_HEADER_V1_MAX_BYTES - 1), &header, &why), 0);
    expect_refusal(slice_of(line, PROXY_HEADER_V1_MAX_BYTES), -EPROTO, "longer than 107");
    expect_refusal(slice_of(line, PROXY_HEADER_V1_MAX_BYTES + 1), -EPROTO, "longer than 107");
}

static void other_bytes_are_told_from_headers(void **state)
{
    (void)state;
    static const char *const others[] = {
        "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n", "PROXYv",  "P R",
        "\x16\x03\x01",       "\r\n\r\nGET",        "\r\nGET", "proxy TCP4"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        expect_refusal(slice_from_cstr(others[i]), -ENOMSG, "no PROXY protocol header");
    expect_refusal(BYTES("\r\n\r\n\0\r\nQUIT\r"), -ENOMSG, "no PROXY protocol header");
}

/* --- Version 2 -------------------------------------------------------------------------------- */

static void version_2_is_read(void **state)
{
    (void)state;
    struct proxy_header header = expect_header(BYTES(V2 "\x21\x11\x00\x0c" ENDS4));
    assert_int_equal(header.version, 2);
    assert_false(header.datagram);
    expect_address(&header.source, "192.0.2.1:40000");
    expect_address(&header.destination, "198.51.100.7:443");
    header = expect_header(BYTES(V2 "\x21\x12\x00\x0c" ENDS4));
    assert_true(header.datagram);
    header = expect_header(BYTES(V2 "\x21\x21\x00\x24"
                                    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
                                    "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x33\x64\x07"
                                    "\x00\x01\xff\xff"));
    expect_address(&header.source, "[2001:db8::1]:1");
    expect_address(&header.destination, "198.51.100.7:65535");
    header = expect_header(BYTES(V2 "\x21\x00\x00\x00"));
    assert_int_equal(header.source.len, 0);
    assert_false(header.local);
}

static void local_headers_are_passed_over(void **state)
{
    (void)state;
    struct proxy_header header = expect_header(BYTES(V2 "\x20\x00\x00\x00"));
    assert_true(header.local);
    header = expect_header(BYTES(V2 "\x20\xff\x00\x05"
                                    "\x01\xff\xff\x00\x00"));
    assert_true(header.local);
    assert_int_equal(header.source.len, 0);
}

static void sockets_of_the_file_system_are_read(void **state)
{
    (void)state;
    char bytes[FILENAME_MAX] = V2 "\x21\x31\x00\xd8";
    char path[109];
    memcpy(bytes + 16, "/run/client.sock", 16);
    memcpy(bytes + 16 + 108, "\0name", 5);
    struct proxy_header header = expect_header(slice_of(bytes, 16 + 216));
    expect_address(&header.source, "unix:/run/client.sock");
    expect_address(&header.destination, "unix:@name");
    memset(bytes + 16, 'p', 108); /* a path that fills its place has no NUL */
    memset(bytes + 16 + 108, 0, 108);
    header = expect_header(slice_of(bytes, 16 + 216));
    memset(path, 'p', 108);
    path[108] = '\0';
    char text[ADDRESS_TEXT_MAX];
    address_format(&header.source, text);
    assert_string_equal(text + 5, path);
    expect_address(&header.destination, "unix:");
}

static void version_2_is_strict(void **state)
{
    (void)state;
    expect_refusal(BYTES(V2 "\x11"), -EPROTO, "version");
    expect_refusal(BYTES(V2 "\x31\x11\x00\x0c" ENDS4), -EPROTO, "version");
    expect_refusal(BYTES(V2 "\x22"), -EPROTO, "command");
    static const unsigned char families[] = {0x01, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41, 0xf1};
    for (size_t i = 0; i < sizeof(families); i++) {
        char bytes[14] = V2 "\x21";
        bytes[13] = (char)families[i];
        expect_refusal(slice_of(bytes, 14), -EPROTO, "family");
    }
    expect_refusal(BYTES(V2 "\x21\x11\x00\x0b"), -EPROTO, "no room");
    expect_refusal(BYTES(V2 "\x21\x21\x00\x23"), -EPROTO, "no room");
    expect_refusal(BYTES(V2 "\x21\x31\x00\xd7"), -EPROTO, "no room");
    expect_refusal(BYTES(V2 "\x21\x11\x3f\xf1"), -EPROTO, "16 KiB");
    expect_refusal(BYTES(V2 "\x20\x00\xff\xff"), -EPROTO, "16 KiB");
}

static void values_are_read(void **state)
{
    (void)state;
    struct proxy_header header = expect_header(BYTES(V2 "\x21\x11\x00\x69" ENDS4 "\x01\x00\x02h2"
                                                        "\x02\x00\x0b"
                                                        "example.org"
                                                        "\x04\x00\x03\0\0\0"
                                                        "\x05\x00\x04\x00\x01\x02\x03"
                                                        "\x30\x00\x03"
                                                        "ns1"
                                                        "\xea\x00\x02\x01z"
                                                        "\x20\x00\x2f\x07\x00\x00\x00\x00"
                                                        "\x21\x00\x07TLSv1.3"
                                                        "\x22\x00\x05"
                                                        "alice"
                                                        "\x23\x00\x03"
                                                        "AES"
                                                        "\x24\x00\x06SHA256"
                                                        "\x25\x00\x06"
                                                        "EC-256"));
    expect_text(header.alpn, "h2");
    expect_text(header.authority, "example.org");
    assert_int_equal(header.unique_id.len, 4);
    assert_memory_equal(header.unique_id.ptr, "\x00\x01\x02\x03", 4);
    assert_true(header.tls.used && header.tls.connected && header.tls.in_session);
    assert_int_equal(header.tls.verdict, 0);
    expect_text(header.tls.version, "TLSv1.3");
    expect_text(header.tls.common_name, "alice");
    expect_text(header.tls.cipher, "AES");
    expect_text(header.tls.signature_algorithm, "SHA256");
    expect_text(header.tls.key_algorithm, "EC-256");
    struct proxy_tlv tlv;
    unsigned count = 0;
    while (proxy_tlv_next(&header.tlvs, &tlv) > 0)
        count++;
    assert_int_equal(count, 7);
}

static void values_are_strict(void **state)
{
    (void)state;
    expect_refusal(BYTES(V2 "\x21\x11\x00\x0d" ENDS4 "\x01"), -EPROTO, "cut short");
    expect_refusal(BYTES(V2 "\x21\x11\x00\x0f" ENDS4 "\x01\x00\x01"), -EPROTO, "cut short");
    expect_refusal(BYTES(V2 "\x21\x11\x00\x13" ENDS4 "\x20\x00\x04\x01\0\0\0"), -EPROTO, "TLS");
    expect_refusal(BYTES(V2 "\x21\x11\x00\x16" ENDS4 "\x20\x00\x07\x01\0\0\0\0\x21\x00"), -EPROTO,
                   "TLS");
    expect_refusal(BYTES(V2 "\x21\x11\x00\x16" ENDS4 "\x01\x00\x02h2\x01\x00\x02h3"), -EPROTO,
                   "twice");
    expect_refusal(
        BYTES(V2 "\x21\x11\x00\x1c" ENDS4 "\x20\x00\x05\0\0\0\0\0\x20\x00\x05\0\0\0\0\0"), -EPROTO,
        "twice");
    char id[16 + 12 + 3 + 129] = V2 "\x21\x11\x00\x90" ENDS4 "\x05\x00\x81";
    expect_refusal(slice_of(id, sizeof(id)), -EPROTO, "unique id");
}

static void checksums_are_verified(void **state)
{
    (void)state;
    assert_int_equal(proxy_crc32c(0, SLICE("123456789")), 0xe3069283);
    char bytes[256];
    struct proxy_header header = {.source = address_of("192.0.2.1:1"),
                                  .destination = address_of("198.51.100.7:2"),
                                  .alpn = SLICE("h2"),
                                  .checksum = true};
    int len = proxy_header_write_v2(&header, bytes, sizeof(bytes));
    assert_true(expect_header(slice_of(bytes, (size_t)len)).checksum);
    for (int at = 16; at < len; at++) {
        struct proxy_header damaged;
        const char *why = "";
        bytes[at] ^= 0x10;
        assert_true(proxy_header_parse(slice_of(bytes, (size_t)len), &damaged, &why) < 0 ||
                    !damaged.checksum);
        bytes[at] ^= 0x10;
    }
    bytes[20] ^= 1;
    expect_refusal(slice_of(bytes, (size_t)len), -EPROTO, "CRC32c");
    expect_refusal(BYTES(V2 "\x21\x11\x00\x12" ENDS4 "\x03\x00\x03\0\0\0"), -EPROTO, "CRC32c");
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void expect_line(const char *source, const char *destination, const char *line)
{
    char out[PROXY_HEADER_V1_MAX_BYTES + 1];
    struct proxy_header header = {.source = address_of(source),
                                  .destination = address_of(destination)};
    size_t len = proxy_header_write_v1(&header, out);
    expect_text(slice_of(out, len), line);
}

static void version_1_is_written(void **state)
{
    (void)state;
    expect_line("192.0.2.1:1", "198.51.100.7:65535",
                "PROXY TCP4 192.0.2.1 198.51.100.7 1 65535\r\n");
    expect_line("[2001:db8::1]:1", "[::1]:2", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    expect_line("[::ffff:192.0.2.1]:1", "[::ffff:198.51.100.7]:2",
                "PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n");
    expect_line("192.0.2.1:1", "[::1]:2", "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
    expect_line("unix:/a", "unix:/b", "PROXY UNKNOWN\r\n");
    expect_line("unix:/a", "198.51.100.7:2", "PROXY UNKNOWN\r\n");
}

static void expect_round_trip(const char *source, const char *destination)
{
    char bytes[1024];
    struct proxy_header header = {
        .source = address_of(source),
        .destination = address_of(destination),
        .datagram = true,
        .checksum = true,
        .alpn = SLICE("h2"),
        .authority = SLICE("example.org"),
        .unique_id = SLICE("id"),
        .tls = {.told = true,
                .used = true,
                .connected = true,
                .verdict = 19,
                .version = SLICE("TLSv1.2"),
                .common_name = SLICE("bob"),
                .cipher = SLICE("C"),
                .signature_algorithm = SLICE("S"),
                .key_algorithm = SLICE("K")},
    };
    int len = proxy_header_write_v2(&header, bytes, sizeof(bytes));
    assert_true(len > 0);
    struct proxy_header again = expect_header(slice_of(bytes, (size_t)len));
    expect_address(&again.source, source);
    expect_address(&again.destination, destination);
    assert_true(again.datagram && again.checksum && again.tls.used && again.tls.connected);
    assert_false(again.tls.in_session);
    assert_int_equal(again.tls.verdict, 19);
    expect_text(again.alpn, "h2");
    expect_text(again.authority, "example.org");
    expect_text(again.unique_id, "id");
    expect_text(again.tls.version, "TLSv1.2");
    expect_text(again.tls.common_name, "bob");
    expect_text(again.tls.cipher, "C");
    expect_text(again.tls.signature_algorithm, "S");
    expect_text(again.tls.key_algorithm, "K");
    for (int size = 0; size < len; size++) /* ASan sees a byte too many */
        assert_int_equal(proxy_header_write_v2(&header, bytes, (size_t)size), -EMSGSIZE);
}

static void version_2_is_written(void **state)
{
    (void)state;
    expect_round_trip("192.0.2.1:1", "198.51.100.7:65535");
    expect_round_trip("[2001:db8::1]:1", "[::1]:2");
    expect_round_trip("192.0.2.1:1", "[::1]:2");
    expect_round_trip("unix:/run/a", "unix:@b");
    char bytes[32];
    struct proxy_header header = {.source = address_of("192.0.2.1:40000"),
                                  .destination = address_of("198.51.100.7:443")};
    assert_int_equal(proxy_header_write_v2(&header, bytes, sizeof(bytes)), 28);
    assert_memory_equal(bytes, V2 "\x21\x11\x00\x0c" ENDS4, 28);
    header = (struct proxy_header){0};
    assert_int_equal(proxy_header_write_v2(&header, bytes, sizeof(bytes)), 16);
    assert_memory_equal(bytes, V2 "\x21\x00\x00\x00", 16);
    header.local = true;
    header.alpn = SLICE("h2");
    assert_int_equal(proxy_header_write_v2(&header, bytes, sizeof(bytes)), 16);
    assert_memory_equal(bytes, V2 "\x20\x00\x00\x00", 16);
}

static void too_much_is_not_written(void **state)
{
    (void)state;
    static char text[70000];
    static char bytes[80000];
    struct proxy_header header = {.authority = slice_of(text, sizeof(text))};
    assert_int_equal(proxy_header_write_v2(&header, bytes, sizeof(bytes)), -EMSGSIZE);
    header.authority.len = PROXY_HEADER_MAX_BYTES;
    assert_int_equal(proxy_header_write_v2(&header, bytes, sizeof(bytes)), -EMSGSIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1_is_read),
        cmocka_unit_test(version_1_may_know_nothing),
        cmocka_unit_test(version_1_is_strict),
        cmocka_unit_test(lines_are_bounded),
        cmocka_unit_test(other_bytes_are_told_from_headers),
        cmocka_unit_test(version_2_is_read),
        cmocka_unit_test(local_headers_are_passed_over),
        cmocka_unit_test(sockets_of_the_file_system_are_read),
        cmocka_unit_test(version_2_is_strict),
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(values_are_strict),
        cmocka_unit_test(checksums_are_verified),
        cmocka_unit_test(version_1_is_written),
        cmocka_unit_test(version_2_is_written),
        cmocka_unit_test(too_much_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
