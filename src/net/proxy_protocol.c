#include "net/proxy_protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>

enum {
    FIXED_BYTES = 16, /* of version 2: all that stands before the addresses */
    V4_BYTES = 12,
    V6_BYTES = 36,
    PATH_BYTES = 108,
    LOCAL_BYTES = 2 * PATH_BYTES,
    TLV_HEAD_BYTES = 3,
    SSL_HEAD_BYTES = 5,
    CRC_BYTES = 4,
    PORT_DIGITS_MAX = 5,

    COMMAND_LOCAL = 0,
    COMMAND_PROXY = 1,
    FAMILY_UNSPEC = 0,
    FAMILY_V4 = 1,
    FAMILY_V6 = 2,
    FAMILY_LOCAL = 3,
    TRANSPORT_STREAM = 1,
    TRANSPORT_DATAGRAM = 2,

    SSL_CLIENT_USED = 1,
    SSL_CLIENT_CONNECTED = 2,
    SSL_CLIENT_IN_SESSION = 4,

    SSL_VERSION = 0x21,
    SSL_COMMON_NAME = 0x22,
    SSL_CIPHER = 0x23,
    SSL_SIGNATURE_ALGORITHM = 0x24,
    SSL_KEY_ALGORITHM = 0x25,
};

static const struct slice line_start = SLICE_INIT("PROXY ");
static const struct slice signature = SLICE_INIT("\r\n\r\n\0\r\nQUIT\n");

static int fail(const char **why, const char *phrase)
{
    *why = phrase;
    return -EPROTO;
}

/* Are they equal, as far as there are bytes? */
static bool may_begin(struct slice bytes, struct slice with)
{
    size_t len = bytes.len < with.len ? bytes.len : with.len;
    return len == 0 || memcmp(bytes.ptr, with.ptr, len) == 0;
}

/* IPv4 addresses that are mapped to IPv6 are IPv4 addresses. */
static void unmap(struct address *address)
{
    const struct in6_addr *v6 = &address->v6.sin6_addr;
    if (!IN6_IS_ADDR_V4MAPPED(v6))
        return;
    struct address v4 = {.v4 = {.sin_family = AF_INET, .sin_port = address->v6.sin6_port},
                         .len = sizeof(v4.v4)};
    memcpy(&v4.v4.sin_addr, v6->s6_addr + 12, sizeof(v4.v4.sin_addr));
    *address = v4;
}

/* --- Version 1 -------------------------------------------------------------------------------- */

/* Takes what stands before the next space, or all. */
static struct slice next_word(struct slice *line)
{
    const char *space = memchr(line->ptr, ' ', line->len);
    struct slice word = slice_of(line->ptr, space ? (size_t)(space - line->ptr) : line->len);
    size_t taken = word.len + (space ? 1 : 0);
    *line = slice_of(line->ptr + taken, line->len - taken);
    return word;
}

static bool parse_host(struct slice text, int family, struct address *address)
{
    char host[INET6_ADDRSTRLEN];
    if (text.len >= sizeof(host) || memchr(text.ptr, '\0', text.len))
        return false;
    memcpy(host, text.ptr, text.len);
    host[text.len] = '\0';
    *address = (struct address){.any.sa_family = (sa_family_t)family};
    address->len = family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
    return family == AF_INET ? inet_pton(AF_INET, host, &address->v4.sin_addr) == 1
                             : inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1;
}

static bool parse_port(struct slice text, in_port_t *port)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > PORT_DIGITS_MAX || (text.ptr[0] == '0' && text.len > 1))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
    }
    *port = htons((uint16_t)value);
    return value <= UINT16_MAX;
}

static int parse_ends(struct slice line, int family, struct proxy_header *header, const char **why)
{
    struct address *source = &header->source;
    struct address *destination = &header->destination;
    in_port_t ports[2];
    if (!parse_host(next_word(&line), family, source) ||
        !parse_host(next_word(&line), family, destination))
        return fail(why, "an address is malformed or of another family than the header says");
    struct slice source_port = next_word(&line);
    if (!parse_port(source_port, &ports[0]) || !parse_port(line, &ports[1]))
        return fail(why, "a port is malformed");
    if (family == AF_INET) {
        source->v4.sin_port = ports[0];
        destination->v4.sin_port = ports[1];
    } else {
        source->v6.sin6_port = ports[0];
        destination->v6.sin6_port = ports[1];
        unmap(source);
        unmap(destination);
    }
    return 0;
}

static int parse_line(struct slice line, struct proxy_header *header, const char **why)
{
    struct slice protocol = next_word(&line);
    if (slice_equal(protocol, SLICE("TCP4")))
        return parse_ends(line, AF_INET, header, why);
    if (slice_equal(protocol, SLICE("TCP6")))
        return parse_ends(line, AF_INET6, header, why);
    if (slice_equal(protocol, SLICE("UNKNOWN")))
        return 0; /* whatever follows says nothing */
    return fail(why, "its protocol is none of TCP4, TCP6 and UNKNOWN");
}

static int parse_v1(struct slice bytes, struct proxy_header *header, const char **why)
{
    bool full = bytes.len >= PROXY_HEADER_V1_MAX_BYTES;
    const char *end = memchr(bytes.ptr, '\n', full ? PROXY_HEADER_V1_MAX_BYTES : bytes.len);
    if (!end)
        return full ? fail(why, "its line is longer than 107 bytes") : 0;
    if (end[-1] != '\r')
        return fail(why, "its line does not end with CRLF");
    const char *start = bytes.ptr + line_start.len;
    header->version = 1;
    int result = parse_line(slice_of(start, (size_t)(end - 1 - start)), header, why);
    return result < 0 ? result : (int)(end + 1 - bytes.ptr);
}

/* --- Version 2: addresses --------------------------------------------------------------------- */

/* Bytes of both addresses, or -1 if there is no such family. */
static int address_bytes(uint8_t family)
{
    unsigned transport = family & 0xf;
    if (family == FAMILY_UNSPEC)
        return 0;
    if (transport != TRANSPORT_STREAM && transport != TRANSPORT_DATAGRAM)
        return -1;
    switch (family >> 4) {
    case FAMILY_V4:
        return V4_BYTES;
    case FAMILY_V6:
        return V6_BYTES;
    case FAMILY_LOCAL:
        return LOCAL_BYTES;
    default:
        return -1;
    }
}

static struct address read_v4(const char *host, const char *port)
{
    struct address address = {.v4.sin_family = AF_INET, .len = sizeof(address.v4)};
    memcpy(&address.v4.sin_addr, host, sizeof(address.v4.sin_addr));
    memcpy(&address.v4.sin_port, port, sizeof(address.v4.sin_port));
    return address;
}

static struct address read_v6(const char *host, const char *port)
{
    struct address address = {.v6.sin6_family = AF_INET6, .len = sizeof(address.v6)};
    memcpy(&address.v6.sin6_addr, host, sizeof(address.v6.sin6_addr));
    memcpy(&address.v6.sin6_port, port, sizeof(address.v6.sin6_port));
    unmap(&address);
    return address;
}

/* A path ends at its NUL, if it has one; an abstract name, which begins with one, at its last byte
 * that is none; no name has length 0. */
static struct address read_path(const char *bytes)
{
    struct address address = {.local.sun_family = AF_UNIX};
    size_t len = PATH_BYTES;
    if (bytes[0] != '\0')
        len = strnlen(bytes, PATH_BYTES);
    else
        while (len && bytes[len - 1] == '\0')
            len--;
    memcpy(address.local.sun_path, bytes, len);
    bool terminated = bytes[0] != '\0' && len < PATH_BYTES;
    address.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (terminated ? 1 : 0));
    return address;
}

static void read_addresses(uint8_t family, const char *at, struct proxy_header *header)
{
    header->datagram = (family & 0xf) == TRANSPORT_DATAGRAM;
    switch (family >> 4) {
    case FAMILY_V4:
        header->source = read_v4(at, at + 8);
        header->destination = read_v4(at + 4, at + 10);
        break;
    case FAMILY_V6:
        header->source = read_v6(at, at + 32);
        header->destination = read_v6(at + 16, at + 34);
        break;
    case FAMILY_LOCAL:
        header->source = read_path(at);
        header->destination = read_path(at + PATH_BYTES);
        break;
    default:
        break;
    }
}

/* --- Version 2: what is behind the addresses -------------------------------------------------- */

static unsigned read_u16(const char *at)
{
    return (unsigned)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

static uint32_t read_u32(const char *at)
{
    return (uint32_t)read_u16(at) << 16 | read_u16(at + 2);
}

int proxy_tlv_next(struct slice *list, struct proxy_tlv *tlv)
{
    if (list->len == 0)
        return 0;
    if (list->len < TLV_HEAD_BYTES)
        return -EPROTO;
    size_t len = read_u16(list->ptr + 1);
    if (list->len - TLV_HEAD_BYTES < len)
        return -EPROTO;
    tlv->type = (uint8_t)list->ptr[0];
    tlv->value = slice_of(list->ptr + TLV_HEAD_BYTES, len);
    *list = slice_of(tlv->value.ptr + len, list->len - TLV_HEAD_BYTES - len);
    return 1;
}

/* Two of a kind leave open which one counts. */
static int set_once(struct slice *field, struct slice value, const char **why)
{
    if (field->ptr)
        return fail(why, "it says something twice");
    *field = value;
    return 0;
}

static int read_tls_value(struct proxy_tls *tls, const struct proxy_tlv *tlv, const char **why)
{
    switch (tlv->type) {
    case SSL_VERSION:
        return set_once(&tls->version, tlv->value, why);
    case SSL_COMMON_NAME:
        return set_once(&tls->common_name, tlv->value, why);
    case SSL_CIPHER:
        return set_once(&tls->cipher, tlv->value, why);
    case SSL_SIGNATURE_ALGORITHM:
        return set_once(&tls->signature_algorithm, tlv->value, why);
    case SSL_KEY_ALGORITHM:
        return set_once(&tls->key_algorithm, tlv->value, why);
    default:
        return 0;
    }
}

static int read_tls(struct proxy_tls *tls, struct slice value, const char **why)
{
    struct proxy_tlv tlv;
    int more;
    if (tls->told)
        return fail(why, "it says something twice");
    if (value.len < SSL_HEAD_BYTES)
        return fail(why, "what it says of TLS is cut short");
    tls->told = true;
    tls->used = value.ptr[0] & SSL_CLIENT_USED;
    tls->connected = value.ptr[0] & SSL_CLIENT_CONNECTED;
    tls->in_session = value.ptr[0] & SSL_CLIENT_IN_SESSION;
    tls->verdict = read_u32(value.ptr + 1);
    struct slice list = slice_of(value.ptr + SSL_HEAD_BYTES, value.len - SSL_HEAD_BYTES);
    while ((more = proxy_tlv_next(&list, &tlv)) > 0) {
        int result = read_tls_value(tls, &tlv, why);
        if (result < 0)
            return result;
    }
    return more < 0 ? fail(why, "what it says of TLS is cut short") : 0;
}

/* The checksum is that of the whole header with zeros in its place. */
static bool checksum_right(struct slice bytes, struct slice value)
{
    size_t before = (size_t)(value.ptr - bytes.ptr);
    size_t behind = before + CRC_BYTES;
    uint32_t crc = proxy_crc32c(0, slice_of(bytes.ptr, before));
    crc = proxy_crc32c(crc, slice_of("\0\0\0", CRC_BYTES));
    crc = proxy_crc32c(crc, slice_of(bytes.ptr + behind, bytes.len - behind));
    return crc == read_u32(value.ptr);
}

static int read_value(struct slice bytes, const struct proxy_tlv *tlv, struct proxy_header *header,
                      const char **why)
{
    switch (tlv->type) {
    case PROXY_TLV_ALPN:
        return set_once(&header->alpn, tlv->value, why);
    case PROXY_TLV_AUTHORITY:
        return set_once(&header->authority, tlv->value, why);
    case PROXY_TLV_UNIQUE_ID:
        if (tlv->value.len > PROXY_UNIQUE_ID_MAX_BYTES)
            return fail(why, "its unique id is longer than 128 bytes");
        return set_once(&header->unique_id, tlv->value, why);
    case PROXY_TLV_CRC32C:
        if (tlv->value.len != CRC_BYTES || header->checksum || !checksum_right(bytes, tlv->value))
            return fail(why, "its checksum (CRC32c) is wrong");
        header->checksum = true;
        return 0;
    case PROXY_TLV_SSL:
        return read_tls(&header->tls, tlv->value, why);
    default:
        return 0; /* NOOP, NETNS, and what others have agreed on */
    }
}

static int read_values(struct slice bytes, struct proxy_header *header, const char **why)
{
    struct slice list = header->tlvs;
    struct proxy_tlv tlv;
    int more;
    while ((more = proxy_tlv_next(&list, &tlv)) > 0) {
        int result = read_value(bytes, &tlv, header, why);
        if (result < 0)
            return result;
    }
    return more < 0 ? fail(why, "a value (TLV) is cut short") : 0;
}

/* --- Version 2 -------------------------------------------------------------------------------- */

/* Judges the fixed part as far as it is there. Returns the length of the whole header, or 0. */
static int check_fixed(struct slice bytes, const char **why)
{
    size_t at = signature.len;
    if (bytes.len <= at)
        return 0;
    unsigned command = bytes.ptr[at] & 0xf;
    if ((uint8_t)bytes.ptr[at] >> 4 != 2)
        return fail(why, "its version is unknown");
    if (command != COMMAND_LOCAL && command != COMMAND_PROXY)
        return fail(why, "its command is unknown");
    if (bytes.len <= at + 1)
        return 0;
    int needed = command == COMMAND_PROXY ? address_bytes((uint8_t)bytes.ptr[at + 1]) : 0;
    if (needed < 0)
        return fail(why, "its address family or transport is unknown");
    if (bytes.len < FIXED_BYTES)
        return 0;
    unsigned len = read_u16(bytes.ptr + at + 2);
    if (len + FIXED_BYTES > PROXY_HEADER_MAX_BYTES)
        return fail(why, "it is longer than 16 KiB");
    if (len < (unsigned)needed)
        return fail(why, "its length leaves no room for its addresses");
    return (int)len + FIXED_BYTES;
}

static int parse_v2(struct slice bytes, struct proxy_header *header, const char **why)
{
    int len = check_fixed(bytes, why);
    if (len <= 0 || bytes.len < (size_t)len)
        return len < 0 ? len : 0;
    bytes.len = (size_t)len;
    header->version = 2;
    header->local = (bytes.ptr[signature.len] & 0xf) == COMMAND_LOCAL;
    if (header->local)
        return len; /* the rest is to be passed over, whatever it is */
    uint8_t family = (uint8_t)bytes.ptr[signature.len + 1];
    size_t behind = FIXED_BYTES + (size_t)address_bytes(family);
    read_addresses(family, bytes.ptr + FIXED_BYTES, header);
    header->tlvs = slice_of(bytes.ptr + behind, bytes.len - behind);
    int result = read_values(bytes, header, why);
    return result < 0 ? result : len;
}

int proxy_header_parse(struct slice bytes, struct proxy_header *header, const char **why)
{
    *header = (struct proxy_header){0};
    bool v1 = may_begin(bytes, line_start);
    if (!v1 && !may_begin(bytes, signature)) {
        *why = "it begins with no PROXY protocol header";
        return -ENOMSG;
    }
    if (bytes.len < line_start.len)
        return 0;
    return v1 ? parse_v1(bytes, header, why) : parse_v2(bytes, header, why);
}
