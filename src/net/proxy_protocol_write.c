/* Writes headers of the PROXY protocol; reading is in proxy_protocol.c. */
#include "net/proxy_protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>

enum {
    FIXED_BYTES = 16,
    PATH_BYTES = 108,
    TLV_HEAD_BYTES = 3,
    CRC_BYTES = 4,
    VERSION_LOCAL = 0x20,
    VERSION_PROXY = 0x21,
};

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

/* How both ends of a connection can be told of. */
enum ends { ENDS_UNKNOWN, ENDS_V4, ENDS_V6, ENDS_LOCAL };

static int family_of(const struct address *address)
{
    return address->len ? address->any.sa_family : AF_UNSPEC;
}

static bool internet(int family)
{
    return family == AF_INET || family == AF_INET6;
}

static bool mapped(const struct address *address)
{
    return family_of(address) == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr);
}

/* Is it an IPv4 address, if only one that the kernel has mapped? */
static bool is_v4(const struct address *address)
{
    return family_of(address) == AF_INET || mapped(address);
}

static enum ends ends_of(const struct proxy_header *header)
{
    int source = family_of(&header->source);
    int destination = family_of(&header->destination);
    if (header->local)
        return ENDS_UNKNOWN;
    if (source == AF_UNIX && destination == AF_UNIX)
        return ENDS_LOCAL;
    if (!internet(source) || !internet(destination))
        return ENDS_UNKNOWN;
    return is_v4(&header->source) && is_v4(&header->destination) ? ENDS_V4 : ENDS_V6;
}

static struct in_addr host_v4(const struct address *address)
{
    struct in_addr host = address->v4.sin_addr;
    if (family_of(address) == AF_INET6)
        memcpy(&host, address->v6.sin6_addr.s6_addr + 12, sizeof(host));
    return host;
}

static struct in6_addr host_v6(const struct address *address)
{
    if (family_of(address) == AF_INET6)
        return address->v6.sin6_addr;
    struct in6_addr host = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(host.s6_addr + 12, &address->v4.sin_addr, sizeof(address->v4.sin_addr));
    return host;
}

/* --- Version 1 -------------------------------------------------------------------------------- */

static void format_host(const struct address *address, enum ends ends, char text[INET6_ADDRSTRLEN])
{
    struct in_addr v4 = host_v4(address);
    struct in6_addr v6 = host_v6(address);
    if (ends == ENDS_V4)
        inet_ntop(AF_INET, &v4, text, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, &v6, text, INET6_ADDRSTRLEN);
}

size_t proxy_header_write_v1(const struct proxy_header *header,
                             char out[PROXY_HEADER_V1_MAX_BYTES + 1])
{
    char source[INET6_ADDRSTRLEN];
    char destination[INET6_ADDRSTRLEN];
    enum ends ends = ends_of(header);
    if (ends != ENDS_V4 && ends != ENDS_V6)
        return (size_t)snprintf(out, PROXY_HEADER_V1_MAX_BYTES + 1, "PROXY UNKNOWN\r\n");
    format_host(&header->source, ends, source);
    format_host(&header->destination, ends, destination);
    return (size_t)snprintf(out, PROXY_HEADER_V1_MAX_BYTES + 1, "PROXY %s %s %s %u %u\r\n",
                            ends == ENDS_V4 ? "TCP4" : "TCP6", source, destination,
                            address_port(&header->source), address_port(&header->destination));
}

/* --- Version 2 -------------------------------------------------------------------------------- */

/* What is being written; `len` goes on counting when there is no more room. */
struct output {
    char *bytes;
    size_t size;
    size_t len;
};

static void put(struct output *out, const void *bytes, size_t len)
{
    if (len && out->len + len <= out->size)
        memcpy(out->bytes + out->len, bytes, len);
    out->len += len;
}

static void put_u8(struct output *out, unsigned value)
{
    uint8_t byte = (uint8_t)value;
    put(out, &byte, 1);
}

static void put_u16(struct output *out, unsigned value)
{
    put_u8(out, value >> 8);
    put_u8(out, value);
}

static void put_u32(struct output *out, uint32_t value)
{
    put_u16(out, value >> 16);
    put_u16(out, value & 0xffff);
}

static void put_tlv(struct output *out, unsigned type, struct slice value)
{
    if (!value.ptr)
        return;
    put_u8(out, type);
    put_u16(out, (unsigned)value.len);
    put(out, value.ptr, value.len);
    if (value.len > UINT16_MAX)
        out->len = SIZE_MAX / 2; /* fits nowhere */
}

static void put_path(struct output *out, const struct address *address)
{
    char path[PATH_BYTES] = {0};
    size_t len = address->len - offsetof(struct sockaddr_un, sun_path);
    memcpy(path, address->local.sun_path, len < sizeof(path) ? len : sizeof(path));
    put(out, path, sizeof(path));
}

static void put_addresses(struct output *out, const struct proxy_header *header, enum ends ends)
{
    const struct address *source = &header->source;
    const struct address *destination = &header->destination;
    struct in_addr v4[2] = {host_v4(source), host_v4(destination)};
    if (ends == ENDS_LOCAL) {
        put_path(out, source);
        put_path(out, destination);
        return;
    }
    if (ends == ENDS_V4) {
        put(out, v4, sizeof(v4));
    } else {
        struct in6_addr v6[2] = {host_v6(source), host_v6(destination)};
        put(out, v6, sizeof(v6));
    }
    put_u16(out, address_port(source));
    put_u16(out, address_port(destination));
}

/* A length of two bytes that is not known yet: where it stands. */
static size_t leave_length(struct output *out)
{
    put_u16(out, 0);
    return out->len;
}

static void fill_length(struct output *out, size_t start)
{
    size_t len = out->len - start;
    if (out->len > out->size)
        return;
    out->bytes[start - 2] = (char)(len >> 8);
    out->bytes[start - 1] = (char)len;
}

static void put_tls(struct output *out, const struct proxy_tls *tls)
{
    if (!tls->used)
        return;
    put_u8(out, PROXY_TLV_SSL);
    size_t start = leave_length(out);
    put_u8(out, 1U | (tls->connected ? 2U : 0) | (tls->in_session ? 4U : 0));
    put_u32(out, tls->verdict);
    put_tlv(out, 0x21, tls->version);
    put_tlv(out, 0x22, tls->common_name);
    put_tlv(out, 0x23, tls->cipher);
    put_tlv(out, 0x24, tls->signature_algorithm);
    put_tlv(out, 0x25, tls->key_algorithm);
    fill_length(out, start);
}

static void put_values(struct output *out, const struct proxy_header *header)
{
    put_tlv(out, PROXY_TLV_ALPN, header->alpn);
    put_tlv(out, PROXY_TLV_AUTHORITY, header->authority);
    put_tlv(out, PROXY_TLV_UNIQUE_ID, header->unique_id);
    put_tls(out, &header->tls);
}

/* Over all that is there now, with zeros in its own place. */
static void fill_checksum(struct output *out, size_t at)
{
    if (out->len > out->size)
        return;
    uint32_t crc = proxy_crc32c(0, slice_of(out->bytes, out->len));
    struct output place = {out->bytes + at, CRC_BYTES, 0};
    put_u32(&place, crc);
}

int proxy_header_write_v2(const struct proxy_header *header, char *out_bytes, size_t size)
{
    static const uint8_t families[] = {
        [ENDS_UNKNOWN] = 0x00, [ENDS_V4] = 0x10, [ENDS_V6] = 0x20, [ENDS_LOCAL] = 0x30};
    struct output out = {out_bytes, size < PROXY_HEADER_MAX_BYTES ? size : PROXY_HEADER_MAX_BYTES,
                         0};
    enum ends ends = ends_of(header);
    unsigned transport = ends == ENDS_UNKNOWN ? 0 : header->datagram ? 2 : 1;
    put(&out, signature, sizeof(signature));
    put_u8(&out, header->local ? VERSION_LOCAL : VERSION_PROXY);
    put_u8(&out, families[ends] | transport);
    size_t start = leave_length(&out);
    if (ends != ENDS_UNKNOWN)
        put_addresses(&out, header, ends);
    if (!header->local)
        put_values(&out, header);
    size_t checksum_at = out.len + TLV_HEAD_BYTES;
    if (header->checksum && !header->local)
        put_tlv(&out, PROXY_TLV_CRC32C, slice_of("\0\0\0", CRC_BYTES));
    fill_length(&out, start);
    if (header->checksum && !header->local)
        fill_checksum(&out, checksum_at);
    return out.len > out.size ? -EMSGSIZE : (int)out.len;
}

uint32_t proxy_crc32c(uint32_t crc, struct slice bytes)
{
    /* The reflected polynomial 0x82f63b78, four bits at a time. */
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    crc = ~crc;
    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= (uint8_t)bytes.ptr[i];
        crc = crc >> 4 ^ table[crc & 0xf];
        crc = crc >> 4 ^ table[crc & 0xf];
    }
    return ~crc;
}
