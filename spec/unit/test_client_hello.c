/* Hellos of TLS clients: real ones, cut and split in every way, and what is none; fingerprints. */
#include "support/client_hellos.h"
#include "tls/client_hello.h"
#include "tls/fingerprint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WIRE_MAX = 65536, HEADER = 5 };

struct wire {
    char bytes[WIRE_MAX];
    size_t len;
};

static struct client_hello_reader reader;
static uint8_t message[CLIENT_HELLO_MAX_BYTES];
static struct wire wire;
static struct wire other;

static void put(struct wire *to, const void *bytes, size_t len)
{
    memcpy(to->bytes + to->len, bytes, len);
    to->len += len;
}

static void put_number(struct wire *to, unsigned number, unsigned bytes)
{
    while (bytes-- > 0)
        to->bytes[to->len++] = (char)(number >> 8 * bytes);
}

static void put_record(struct wire *to, const char *bytes, size_t len)
{
    put(to, "\x16\x03\x01", 3);
    put_number(to, (unsigned)len, 2);
    put(to, bytes, len);
}

static void from_hex(const char *hex)
{
    wire.len = 0;
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        put_number(&wire, byte, 1);
}

static enum client_hello_verdict read_all(const struct wire *from)
{
    client_hello_begin(&reader, message);
    return client_hello_read(&reader, slice_of(from->bytes, from->len));
}

static int parse(struct client_hello *hello)
{
    return client_hello_parse(slice_of((const char *)message, reader.message_len), hello);
}

/* --- Real ones -------------------------------------------------------------------------------- */

static void real_hellos_are_understood(void **state)
{
    (void)state;
    for (unsigned i = 0; i < REAL_HELLOS; i++) {
        const struct real_hello *real = &real_hellos[i];
        struct client_hello hello;
        from_hex(real->hex);
        assert_int_equal(read_all(&wire), CLIENT_HELLO_DONE);
        assert_int_equal(parse(&hello), 0);
        assert_string_equal(hello.name, real->name);
        assert_true(slice_equal(hello.alpn, slice_from_cstr(real->alpn)));
        assert_int_equal(client_hello_version(&hello), real->version);
    }
}

static void fingerprints_are_those_of_other_programs(void **state)
{
    (void)state;
    static char ja3[FINGERPRINT_JA3_MAX_BYTES];
    char hash[FINGERPRINT_JA3_HASH_BYTES];
    char ja4[FINGERPRINT_JA4_BYTES];
    for (unsigned i = 0; i < REAL_HELLOS; i++) {
        struct client_hello hello;
        from_hex(real_hellos[i].hex);
        read_all(&wire);
        parse(&hello);
        struct slice text = slice_of(ja3, fingerprint_ja3(&hello, ja3));
        assert_true(slice_equal(text, slice_from_cstr(real_hellos[i].ja3)));
        assert_int_equal(fingerprint_ja3_hash(text, hash), 0);
        assert_string_equal(hash, real_hellos[i].ja3_hash);
        assert_int_equal(fingerprint_ja4(&hello, ja4), 0);
        assert_string_equal(ja4, real_hellos[i].ja4);
    }
}

/* The same message must come out, and no byte too early. */
static void assert_same(const struct wire *split, const struct wire *whole)
{
    static uint8_t expected[CLIENT_HELLO_MAX_BYTES];
    size_t len = whole->len - HEADER;
    memcpy(expected, whole->bytes + HEADER, len);
    assert_int_equal(read_all(split), CLIENT_HELLO_DONE);
    assert_int_equal(reader.message_len, len);
    assert_memory_equal(message, expected, len);
    client_hello_begin(&reader, message);
    for (size_t i = 0; i < split->len; i++)
        assert_int_equal(client_hello_read(&reader, slice_of(split->bytes + i, 1)),
                         i + 1 < split->len ? CLIENT_HELLO_MORE : CLIENT_HELLO_DONE);
    assert_memory_equal(message, expected, len);
}

static void arrivals_may_be_cut_at_every_byte(void **state)
{
    (void)state;
    for (unsigned i = 0; i < REAL_HELLOS; i++) {
        from_hex(real_hellos[i].hex);
        for (size_t cut = 0; cut <= wire.len; cut++) {
            client_hello_begin(&reader, message);
            enum client_hello_verdict verdict =
                client_hello_read(&reader, slice_of(wire.bytes, cut));
            assert_int_equal(verdict, cut < wire.len ? CLIENT_HELLO_MORE : CLIENT_HELLO_DONE);
            if (cut == wire.len)
                continue;
            verdict = client_hello_read(&reader, slice_of(wire.bytes + cut, wire.len - cut));
            assert_int_equal(verdict, CLIENT_HELLO_DONE);
        }
    }
}

static void messages_may_be_split_into_records_at_every_byte(void **state)
{
    (void)state;
    from_hex(real_hellos[0].hex);
    const char *body = wire.bytes + HEADER;
    size_t len = wire.len - HEADER;
    for (size_t cut = 1; cut < len; cut++) {
        other.len = 0;
        put_record(&other, body, cut);
        put_record(&other, body + cut, len - cut);
        assert_same(&other, &wire);
    }
}

static void messages_may_be_split_into_records_of_every_size(void **state)
{
    (void)state;
    for (unsigned i = 0; i < REAL_HELLOS; i++) {
        from_hex(real_hellos[i].hex);
        size_t len = wire.len - HEADER;
        for (size_t size = 1; size <= len; size++) {
            other.len = 0;
            for (size_t at = 0; at < len; at += size)
                put_record(&other, wire.bytes + HEADER + at, len - at < size ? len - at : size);
            assert_same(&other, &wire);
        }
    }
}

static void what_comes_behind_is_not_looked_at(void **state)
{
    (void)state;
    from_hex(real_hellos[0].hex);
    size_t len = wire.len;
    put(&wire, "\x17\x03\x03garbage", 10);
    assert_int_equal(read_all(&wire), CLIENT_HELLO_DONE);
    assert_int_equal(reader.message_len, len - HEADER);
    assert_int_equal(reader.total, len);
}

/* --- What is none ----------------------------------------------------------------------------- */

static void assert_verdict(const char *bytes, size_t len, enum client_hello_verdict verdict,
                           size_t after)
{
    client_hello_begin(&reader, message);
    for (size_t i = 0; i < len; i++) {
        enum client_hello_verdict found = client_hello_read(&reader, slice_of(bytes + i, 1));
        assert_int_equal(found, i + 1 < after ? CLIENT_HELLO_MORE : verdict);
        if (found != CLIENT_HELLO_MORE)
            return;
    }
    fail_msg("no verdict");
}

#define ASSERT_VERDICT(text, verdict, after)                                                       \
    assert_verdict((text), sizeof(text) - 1, (verdict), (after))

static void other_protocols_are_told_by_their_first_bytes(void **state)
{
    (void)state;
    ASSERT_VERDICT("GET / HTTP/1.1\r\n", CLIENT_HELLO_NOT_TLS, 1);
    ASSERT_VERDICT("SSH-2.0-x\r\n", CLIENT_HELLO_NOT_TLS, 1);
    ASSERT_VERDICT("\x80\x2e\x01\x03\x01", CLIENT_HELLO_NOT_TLS, 1); /* SSLv2 */
    ASSERT_VERDICT("\x15\x03\x01\x00\x02", CLIENT_HELLO_NOT_TLS, 1); /* an alert */
    ASSERT_VERDICT("\x16\xfe\xff", CLIENT_HELLO_NOT_TLS, 2);         /* DTLS */
    ASSERT_VERDICT("\x16\x03\x01\x00\x00", CLIENT_HELLO_NOT_TLS, 5);
    ASSERT_VERDICT("\x16\x03\x01\x40\x01", CLIENT_HELLO_NOT_TLS, 5);
    ASSERT_VERDICT("\x16\x03\x01\x00\x10\x02", CLIENT_HELLO_NOT_TLS, 6); /* a server's */
}

static void what_interrupts_a_message_is_malformed(void **state)
{
    (void)state;
    ASSERT_VERDICT("\x16\x03\x01\x00\x02\x01\x00\x14", CLIENT_HELLO_MALFORMED, 8);
    ASSERT_VERDICT("\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", CLIENT_HELLO_MALFORMED, 11);
    ASSERT_VERDICT("\x16\x03\x01\x00\x01\x01\x16\x03\x01\x40\x01", CLIENT_HELLO_MALFORMED, 11);
    ASSERT_VERDICT("\x16\x03\x01\x00\x01\x01\x16\x04", CLIENT_HELLO_MALFORMED, 8);
}

static void hellos_are_bounded(void **state)
{
    (void)state;
    ASSERT_VERDICT("\x16\x03\x01\x40\x00\x01\x00\x40\x01", CLIENT_HELLO_TOO_LARGE, 9);
    ASSERT_VERDICT("\x16\x03\x01\x40\x00\x01\xff\xff\xff", CLIENT_HELLO_TOO_LARGE, 9);
    wire.len = 0;
    put_record(&wire, "\x01\x00\x40\x00", 4);
    while (wire.len < CLIENT_HELLO_RECORDS_MAX_BYTES)
        put_record(&wire, "x", 1);
    assert_verdict(wire.bytes, wire.len, CLIENT_HELLO_TOO_LARGE, CLIENT_HELLO_RECORDS_MAX_BYTES);
    /* One of the largest size that fits. */
    wire.len = other.len = 0;
    put(&other, "\x01\x00\x40\x00", 4);
    memset(other.bytes + 4, 'x', 16384);
    put_record(&wire, other.bytes, 16384);
    put_record(&wire, other.bytes + 16384, 4);
    assert_int_equal(read_all(&wire), CLIENT_HELLO_DONE);
}

/* --- Made ones -------------------------------------------------------------------------------- */

struct made {
    const char *ciphers; /* hexadecimal, as all */
    const char *extensions;
    unsigned version;
};

static void put_hex(struct wire *to, const char *hex)
{
    for (unsigned byte; *hex && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        put_number(to, byte, 1);
}

/* Puts the message of a hello at the place where the reader would. */
static int make(struct made made, struct client_hello *hello)
{
    wire.len = 0;
    put_number(&wire, 1, 1);
    put_number(&wire, 0, 3);
    put_number(&wire, made.version ? made.version : 0x0303, 2);
    memset(wire.bytes + wire.len, 'r', 32);
    wire.len += 32;
    put_number(&wire, 0, 1);
    put_number(&wire, (unsigned)strlen(made.ciphers) / 2, 2);
    put_hex(&wire, made.ciphers);
    put(&wire, "\x01\x00", 2);
    if (made.extensions) {
        put_number(&wire, (unsigned)strlen(made.extensions) / 2, 2);
        put_hex(&wire, made.extensions);
    }
    return client_hello_parse(slice_of(wire.bytes, wire.len), hello);
}

static void assert_ja3(struct made made, const char *ja3, const char *ja3_hash)
{
    static char text[FINGERPRINT_JA3_MAX_BYTES];
    char hash[FINGERPRINT_JA3_HASH_BYTES];
    struct client_hello hello;
    assert_int_equal(make(made, &hello), 0);
    struct slice found = slice_of(text, fingerprint_ja3(&hello, text));
    assert_true(slice_equal(found, slice_from_cstr(ja3)));
    assert_int_equal(fingerprint_ja3_hash(found, hash), 0);
    assert_string_equal(hash, ja3_hash);
}

/* The examples of JA3's own description. */
static void published_ja3_are_met(void **state)
{
    (void)state;
    assert_ja3((struct made){.version = 769,
                             .ciphers = "002f00350005000ac009c00ac013c0140032003800130004",
                             .extensions = "000000060004000001"
                                           "61"
                                           "000a00080006001700180019"
                                           "000b00020100"},
               "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0",
               "ada70206e40642a3e4461f35503241d5");
    assert_ja3((struct made){.version = 769,
                             .ciphers = "00040005000a0009006400620003000600130012"
                                        "0063"},
               "769,4-5-10-9-100-98-3-6-19-18-99,,,", "de350869b8c85de67a350c8d186f11e6");
}

/* The example of JA4's own description: a browser, with values that stand for none. */
static const struct made browser = {
    .ciphers = "2a2a130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035",
    .extensions = "9a9a0000"
                  "0000000600040000"
                  "0161"
                  "00170000"
                  "ff01000100"
                  "000a000a0008caca001d00170018"
                  "000b00020100"
                  "00230000"
                  "0010000e000c02683208687474702f312e31"
                  "0005000501000000"
                  "00"
                  "000d0012001004030804040105030805050108060601"
                  "00120000"
                  "00330005000300000"
                  "0"
                  "002d00020101"
                  "002b0007060a0a03040303"
                  "001b0003020002"
                  "44690005000302683"
                  "2"
                  "7a7a000100"
                  "00150002"
                  "0000",
};

static void values_that_stand_for_none_do_not_count(void **state)
{
    (void)state;
    char ja4[FINGERPRINT_JA4_BYTES];
    struct client_hello hello;
    assert_int_equal(make(browser, &hello), 0);
    assert_int_equal(client_hello_version(&hello), 0x0304);
    assert_int_equal(fingerprint_ja4(&hello, ja4), 0);
    assert_string_equal(ja4, "t13d1516h2_8daaf6152771_e5627efa2ab1");
    static char text[FINGERPRINT_JA3_MAX_BYTES];
    struct slice ja3 = slice_of(text, fingerprint_ja3(&hello, text));
    assert_true(slice_equal(
        ja3, SLICE("771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-"
                   "53,0-23-65281-10-11-35-16-5-13-18-51-45-43-27-17513-21,29-23-24,0")));
}

static void ja4_is_short_of_what_is_not_there(void **state)
{
    (void)state;
    char ja4[FINGERPRINT_JA4_BYTES];
    struct client_hello hello;
    assert_int_equal(make((struct made){.ciphers = "0a0a", .version = 0x0301}, &hello), 0);
    assert_int_equal(fingerprint_ja4(&hello, ja4), 0);
    assert_string_equal(ja4, "t10i000000_000000000000_000000000000");
    assert_int_equal(
        make((struct made){.ciphers = "0a0a", .extensions = "0010000500030241ff"}, &hello), 0);
    assert_int_equal(fingerprint_ja4(&hello, ja4), 0);
    assert_string_equal(ja4, "t12i00014f_000000000000_000000000000");
}

static void malformed_parts_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "0000",                 /* half an extension */
        "0017000000170000",     /* twice the same */
        "00000006000400000120", /* names that are none */
        "0000000600040000012f",
        "00000006000400000100",
        "00000006000401000161",   /* of no kind that there is */
        "0000000700040000016100", /* with something behind it */
        "00000000",               /* nothing in it */
        "001000020000",
        "00100003000100",
        "00100005000302683200",
        "000a00040002001d00",
        "000a00050003001d00",
        "002b000302030400",
        "002b00020103",
        "000b000100",
        "000d00020000",
    };
    struct client_hello hello;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(make((struct made){.ciphers = "1301", .extensions = bad[i]}, &hello),
                         -EPROTO);
    assert_int_equal(make((struct made){.ciphers = ""}, &hello), -EPROTO);
    assert_int_equal(make((struct made){.ciphers = "13"}, &hello), -EPROTO);
    assert_int_equal(make((struct made){.ciphers = "1301", .extensions = ""}, &hello), 0);
}

/* Each copy has exactly the memory that the message has, so that reading beyond it is found. */
static void messages_may_end_anywhere(void **state)
{
    (void)state;
    from_hex(real_hellos[0].hex);
    size_t len = wire.len - HEADER;
    for (size_t cut = 0; cut < len; cut++) {
        struct client_hello hello;
        char *copy = malloc(cut ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, wire.bytes + HEADER, cut);
        int result = client_hello_parse(slice_of(copy, cut), &hello);
        bool bare = result == 0 && hello.extensions.len == 0; /* the cut is before its extensions */
        assert_true(result == -EPROTO || bare);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_hellos_are_understood),
        cmocka_unit_test(fingerprints_are_those_of_other_programs),
        cmocka_unit_test(arrivals_may_be_cut_at_every_byte),
        cmocka_unit_test(messages_may_be_split_into_records_at_every_byte),
        cmocka_unit_test(messages_may_be_split_into_records_of_every_size),
        cmocka_unit_test(what_comes_behind_is_not_looked_at),
        cmocka_unit_test(other_protocols_are_told_by_their_first_bytes),
        cmocka_unit_test(what_interrupts_a_message_is_malformed),
        cmocka_unit_test(hellos_are_bounded),
        cmocka_unit_test(published_ja3_are_met),
        cmocka_unit_test(values_that_stand_for_none_do_not_count),
        cmocka_unit_test(ja4_is_short_of_what_is_not_there),
        cmocka_unit_test(malformed_parts_are_refused),
        cmocka_unit_test(messages_may_end_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
