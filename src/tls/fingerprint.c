#include "tls/fingerprint.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tls/digest.h"

enum {
    NUMBERS_MAX = CLIENT_HELLO_MAX_BYTES / 2,
    COUNT_MAX = 99, /* of two digits */
    SERVER_NAME = 0,
    ALPN = 16,
    JA4_DIGEST_CHARS = 12,
};

/* Text that is being written; who begins one knows that there is room. */
struct text {
    char *bytes;
    size_t len;
};

static void put_char(struct text *text, char c)
{
    text->bytes[text->len++] = c;
}

static void put_decimal(struct text *text, unsigned number)
{
    unsigned divisor = 1;
    while (number / divisor >= 10)
        divisor *= 10;
    for (; divisor; divisor /= 10)
        put_char(text, (char)('0' + number / divisor % 10));
}

static void put_hex(struct text *text, uint16_t number)
{
    for (int shift = 12; shift >= 0; shift -= 4)
        put_char(text, "0123456789abcdef"[number >> shift & 15]);
}

static void hex_of(const uint8_t *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    out[2 * len] = '\0';
}

/* --- JA3 -------------------------------------------------------------------------------------- */

/* The next member of a list, with a dash before all but the first. */
static void put_member(struct text *text, size_t start, uint16_t number)
{
    if (client_hello_is_grease(number))
        return;
    if (text->len > start)
        put_char(text, '-');
    put_decimal(text, number);
}

static void put_numbers(struct text *text, struct slice list)
{
    uint16_t number;
    put_char(text, ',');
    for (size_t start = text->len; client_hello_next_number(&list, &number);)
        put_member(text, start, number);
}

static void put_extensions(struct text *text, struct slice rest)
{
    uint16_t type;
    struct slice data;
    put_char(text, ',');
    for (size_t start = text->len; client_hello_next_extension(&rest, &type, &data);)
        put_member(text, start, type);
}

size_t fingerprint_ja3(const struct client_hello *hello, char *bytes)
{
    struct text text = {.bytes = bytes};
    put_decimal(&text, hello->legacy_version);
    put_numbers(&text, hello->ciphers);
    put_extensions(&text, hello->extensions);
    put_numbers(&text, hello->groups);
    put_char(&text, ',');
    size_t start = text.len;
    for (size_t i = 0; i < hello->point_formats.len; i++)
        put_member(&text, start, (uint8_t)hello->point_formats.ptr[i]);
    return text.len;
}

int fingerprint_ja3_hash(struct slice ja3, char hash[FINGERPRINT_JA3_HASH_BYTES])
{
    uint8_t digest[DIGEST_MD5_BYTES];
    int result = digest_md5(ja3, digest);
    if (result == 0)
        hex_of(digest, sizeof(digest), hash);
    return result;
}

/* --- JA4 -------------------------------------------------------------------------------------- */

/* Numbers of a hello without those that stand for none. */
struct numbers {
    uint16_t list[NUMBERS_MAX];
    unsigned count;
};

static void add_number(struct numbers *numbers, uint16_t number)
{
    if (!client_hello_is_grease(number))
        numbers->list[numbers->count++] = number;
}

static void add_list(struct numbers *numbers, struct slice list)
{
    uint16_t number;
    while (client_hello_next_number(&list, &number))
        add_number(numbers, number);
}

static int compare(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static void sort(struct numbers *numbers)
{
    qsort(numbers->list, numbers->count, sizeof(numbers->list[0]), compare);
}

static void put_hex_list(struct text *text, const struct numbers *numbers)
{
    for (unsigned i = 0; i < numbers->count; i++) {
        if (i)
            put_char(text, ',');
        put_hex(text, numbers->list[i]);
    }
}

static const char *version_code(uint16_t version)
{
    switch (version) {
    case 0x0304:
        return "13";
    case 0x0303:
        return "12";
    case 0x0302:
        return "11";
    case 0x0301:
        return "10";
    case 0x0300:
        return "s3";
    default:
        return "00";
    }
}

/* First and last character of the first protocol's name, or of its hexadecimal form. */
static void alpn_code(struct slice alpn, char code[2])
{
    memcpy(code, "00", 2);
    if (!alpn.len)
        return;
    uint8_t first = (uint8_t)alpn.ptr[1];
    uint8_t last = (uint8_t)alpn.ptr[(uint8_t)alpn.ptr[0]];
    bool plain = first < 0x80 && last < 0x80 && isalnum(first) && isalnum(last);
    code[0] = (char)(plain ? first : "0123456789abcdef"[first >> 4]);
    code[1] = (char)(plain ? last : "0123456789abcdef"[last & 15]);
}

static unsigned up_to_99(unsigned count)
{
    return count < COUNT_MAX ? count : COUNT_MAX;
}

/* "_" and the first 12 characters of the SHA-256, which are zeros of nothing. */
static int put_digest(struct text *ja4, struct text *of)
{
    uint8_t digest[DIGEST_SHA256_BYTES] = {0};
    char hex[2 * DIGEST_SHA256_BYTES + 1];
    if (of->len && digest_sha256(slice_of(of->bytes, of->len), digest) != 0)
        return -ENOMEM;
    hex_of(digest, sizeof(digest), hex);
    put_char(ja4, '_');
    memcpy(ja4->bytes + ja4->len, hex, JA4_DIGEST_CHARS);
    ja4->len += JA4_DIGEST_CHARS;
    return 0;
}

/* Ciphers: how many there are, and their digest. */
static int digest_ciphers(const struct client_hello *hello, struct text *digest, unsigned *count)
{
    char bytes[FINGERPRINT_JA3_MAX_BYTES];
    struct text text = {.bytes = bytes};
    struct numbers numbers;
    numbers.count = 0;
    add_list(&numbers, hello->ciphers);
    sort(&numbers);
    put_hex_list(&text, &numbers);
    *count = numbers.count;
    return put_digest(digest, &text);
}

/* Extensions without name and protocols, which the first part tells of; then what may be signed, in
 * its order. */
static int digest_extensions(const struct client_hello *hello, struct text *digest, unsigned *count)
{
    char bytes[FINGERPRINT_JA3_MAX_BYTES];
    struct text text = {.bytes = bytes};
    struct numbers numbers;
    struct slice rest = hello->extensions;
    struct slice data;
    unsigned told = 0;
    numbers.count = 0;
    for (uint16_t type; client_hello_next_extension(&rest, &type, &data);)
        if (type == SERVER_NAME || type == ALPN)
            told++;
        else
            add_number(&numbers, type);
    *count = numbers.count + told;
    sort(&numbers);
    put_hex_list(&text, &numbers);
    numbers.count = 0;
    add_list(&numbers, hello->signature_algorithms);
    if (numbers.count)
        put_char(&text, '_');
    put_hex_list(&text, &numbers);
    return put_digest(digest, &text);
}

int fingerprint_ja4(const struct client_hello *hello, char ja4[FINGERPRINT_JA4_BYTES])
{
    char bytes[FINGERPRINT_JA4_BYTES];
    struct text digests = {.bytes = bytes};
    unsigned ciphers;
    unsigned extensions;
    char alpn[2];
    if (digest_ciphers(hello, &digests, &ciphers) != 0 ||
        digest_extensions(hello, &digests, &extensions) != 0)
        return -ENOMEM;
    alpn_code(hello->alpn, alpn);
    snprintf(ja4, FINGERPRINT_JA4_BYTES, "t%s%c%02u%02u%.2s%.*s",
             version_code(client_hello_version(hello)), hello->name[0] ? 'd' : 'i',
             up_to_99(ciphers), up_to_99(extensions), alpn, (int)digests.len, digests.bytes);
    return 0;
}
