/*
 * What a client says in its hello, read before the library reads it. Pure: everything points into
 * the message.
 */
#include "tls/gnutls_internal.h"

enum {
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_GROUPS = 10,
    EXTENSION_ALPN = 16,
    EXTENSION_VERSIONS = 43,
    EXTENSION_SHARES = 51,
    HELLO_SESSION_ID_AT = 34, /* behind version and random */
    WIRE_TLS_1_2 = 0x0303,
    WIRE_TLS_1_3 = 0x0304,
};

static unsigned read_16(const unsigned char *bytes)
{
    return ((unsigned)bytes[0] << 8) | bytes[1];
}

/* The first name of a list, which has one in practice (RFC 6066, 3). */
static int read_name(struct tls_gnutls_hello *hello, const unsigned char *bytes, unsigned size)
{
    enum { LIST_HEADER = 2, NAME_HEADER = 3, TYPE_HOST_NAME = 0 };
    if (size < LIST_HEADER + NAME_HEADER || read_16(bytes) != size - LIST_HEADER)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    unsigned len = read_16(bytes + LIST_HEADER + 1);
    if (len == 0 || len > size - LIST_HEADER - NAME_HEADER)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    if (bytes[LIST_HEADER] == TYPE_HOST_NAME)
        hello->name = tls_name_bare(slice_of((const char *)bytes + LIST_HEADER + NAME_HEADER, len));
    return 0;
}

static int read_alpn(struct tls_gnutls_hello *hello, const unsigned char *bytes, unsigned size)
{
    if (size < 2 || read_16(bytes) != size - 2)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    for (unsigned at = 2; at < size; at += 1U + bytes[at])
        if (bytes[at] == 0 || bytes[at] >= size - at)
            return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    hello->alpn = slice_of((const char *)bytes + 2, size - 2);
    return 0;
}

static int read_versions(struct tls_gnutls_hello *hello, const unsigned char *bytes, unsigned size)
{
    if (size < 3 || bytes[0] != size - 1 || bytes[0] % 2)
        return GNUTLS_E_UNEXPECTED_PACKET_LENGTH;
    hello->versions = slice_of((const char *)bytes + 1, size - 1);
    return 0;
}

/* A group that is known here; -1: another. */
static int group_of(unsigned wire)
{
    static const unsigned groups[TLS_GROUP_COUNT] = {
        [TLS_X25519] = 0x001d,
        [TLS_SECP256R1] = 0x0017,
        [TLS_SECP384R1] = 0x0018,
        [TLS_SECP521R1] = 0x0019,
    };
    for (unsigned i = 0; i < TLS_GROUP_COUNT; i++)
        if (groups[i] == wire)
            return (int)i;
    return -1;
}

/* What is malformed in these two is left to the library, which checks more of it. */
static void read_groups(struct tls_gnutls_hello *hello, const unsigned char *bytes, unsigned size)
{
    for (unsigned at = 2; at + 1 < size; at += 2) {
        int group = group_of(read_16(bytes + at));
        if (group >= 0)
            hello->knows_group[group] = true;
    }
}

static void read_shares(struct tls_gnutls_hello *hello, const unsigned char *bytes, unsigned size)
{
    enum { SHARE_HEADER = 4 };
    for (unsigned at = 2; at + SHARE_HEADER <= size; at += SHARE_HEADER + read_16(bytes + at + 2)) {
        int group = group_of(read_16(bytes + at));
        if (group >= 0)
            hello->has_share[group] = true;
    }
}

static int read_extension(void *owner, unsigned id, const unsigned char *bytes, unsigned size)
{
    switch (id) {
    case EXTENSION_SERVER_NAME:
        return read_name(owner, bytes, size);
    case EXTENSION_GROUPS:
        read_groups(owner, bytes, size);
        return 0;
    case EXTENSION_ALPN:
        return read_alpn(owner, bytes, size);
    case EXTENSION_VERSIONS:
        return read_versions(owner, bytes, size);
    case EXTENSION_SHARES:
        read_shares(owner, bytes, size);
        return 0;
    default:
        return 0;
    }
}

enum suite_kind { SUITE_ECDSA = 1, SUITE_CHACHA = 2, SUITE_IGNORED = 4 };

/* What is remarkable about a suite that the client offers. */
static unsigned judge(const struct tls_policy *policy, unsigned suite)
{
    static const unsigned ecdsa[TLS_CIPHER_COUNT] = {
        [TLS_AES128_GCM] = 0xc02b,
        [TLS_AES256_GCM] = 0xc02c,
        [TLS_CHACHA20_POLY1305] = 0xcca9,
    };
    bool greases = (suite & 0x0f0f) == 0x0a0a; /* RFC 8701: suites that are none */
    if (greases || suite == 0x00ff)            /* and a signal (RFC 5746) */
        return SUITE_IGNORED;
    unsigned kind = suite == 0x1303 || suite == 0xcca8 || suite == 0xcca9 ? SUITE_CHACHA : 0;
    for (unsigned i = 0; i < policy->cipher_count; i++)
        if (ecdsa[policy->ciphers[i]] == suite)
            kind |= SUITE_ECDSA;
    return kind;
}

/* The message is one whose lengths were checked, by gnutls_ext_raw_parse. */
static void read_suites(struct tls_gnutls_hello *hello, const struct tls_policy *policy,
                        const gnutls_datum_t *message)
{
    const unsigned char *suites = message->data + HELLO_SESSION_ID_AT;
    suites += 1 + suites[0];
    unsigned size = read_16(suites);
    bool first = true;
    for (unsigned at = 0; at + 1 < size; at += 2) {
        unsigned kind = judge(policy, read_16(suites + 2 + at));
        hello->offers_ecdsa |= (kind & SUITE_ECDSA) != 0;
        hello->wants_chacha |= first && (kind & SUITE_CHACHA);
        first = first && (kind & SUITE_IGNORED);
    }
}

int tls_gnutls_hello_read(struct tls_gnutls_hello *hello, const struct tls_policy *policy,
                          const gnutls_datum_t *message)
{
    *hello = (struct tls_gnutls_hello){0};
    int code =
        gnutls_ext_raw_parse(hello, read_extension, message, GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO);
    if (code < 0 && code != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) /* no extensions: very well */
        return code;
    hello->version = read_16(message->data);
    read_suites(hello, policy, message);
    return 0;
}

/* The library would look for ciphers that fit no version, and complain of those. */
unsigned tls_gnutls_agree(const struct tls_gnutls_hello *hello, const struct tls_policy *policy)
{
    const unsigned char *bytes = (const unsigned char *)hello->versions.ptr;
    unsigned agreed = 0;
    if (!hello->versions.len && hello->version >= WIRE_TLS_1_2 && policy->version_min <= TLS_1_2)
        return TLS_1_2;
    for (size_t i = 0; i + 1 < hello->versions.len; i += 2) {
        unsigned version = read_16(bytes + i);
        if (version == WIRE_TLS_1_3 && policy->version_max >= TLS_1_3)
            return TLS_1_3;
        if (version == WIRE_TLS_1_2 && policy->version_min <= TLS_1_2)
            agreed = TLS_1_2;
    }
    return agreed;
}

enum tls_group tls_gnutls_first_group(const struct tls_gnutls_hello *hello,
                                      const struct tls_policy *policy)
{
    for (unsigned i = 0; i < policy->group_count; i++)
        if (hello->knows_group[policy->groups[i]] && hello->has_share[policy->groups[i]])
            return policy->groups[i];
    return policy->groups[0];
}
