/*
 * The PROXY protocol (haproxy's proxy-protocol.txt): what a proxy says of its client in front of
 * all other bytes of a connection. A pure parser and a writer of both versions; nothing here
 * suspends or allocates.
 *
 *   v1   PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n                       at most 107 bytes
 *   v2   signature (12) | version, command | family, transport | length (2)
 *        source, destination: addresses, ports (12, 36 or 216) | type (1) length (2) value ...
 */
#ifndef NET_PROXY_PROTOCOL_H
#define NET_PROXY_PROTOCOL_H

#include "base/slice.h"
#include "net/address.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    PROXY_HEADER_V1_MAX_BYTES = 107,
    PROXY_HEADER_MAX_BYTES = 16384, /* what is longer is refused; v2 itself allows 65,551 */
    PROXY_UNIQUE_ID_MAX_BYTES = 128,
};

enum proxy_tlv_type {
    PROXY_TLV_ALPN = 0x01,
    PROXY_TLV_AUTHORITY = 0x02,
    PROXY_TLV_CRC32C = 0x03,
    PROXY_TLV_NOOP = 0x04,
    PROXY_TLV_UNIQUE_ID = 0x05,
    PROXY_TLV_SSL = 0x20,
    PROXY_TLV_NETNS = 0x30,
};

/* What the sender knows of the client's TLS. Slices without a pointer: not told. */
struct proxy_tls {
    bool told;        /* the header says something of TLS, if only that there is none */
    bool used;        /* the client speaks TLS; without it the rest says nothing */
    bool connected;   /* it has shown a certificate on this connection */
    bool in_session;  /* or at least in the TLS session that this one resumes */
    uint32_t verdict; /* on the certificate; 0: it was verified */
    struct slice version;
    struct slice common_name;
    struct slice cipher;
    struct slice signature_algorithm;
    struct slice key_algorithm;
};

/* A header. Slices point into the bytes that were parsed; without a pointer: not told. */
struct proxy_header {
    uint8_t version;            /* 1 or 2 */
    bool local;                 /* LOCAL: the sender speaks for itself, nothing else counts */
    bool datagram;              /* the client came by datagrams */
    bool checksum;              /* there is a (right) CRC32c; when writing: add one */
    struct address source;      /* len 0: the sender does not tell */
    struct address destination; /* told if source is */
    struct slice alpn;
    struct slice authority;
    struct slice unique_id;
    struct proxy_tls tls;
    struct slice tlvs; /* all of them, as they came; not for writing */
};

/*
 * Parses the header that bytes begin with. Returns its length, 0 if there must be more bytes, or a
 * negative errno with *why, a phrase: -ENOMSG if they begin with no header at all, -EPROTO if it is
 * malformed. Whatever can be judged by the bytes that are there is judged at once.
 */
int proxy_header_parse(struct slice bytes, struct proxy_header *header, const char **why);

struct proxy_tlv {
    uint8_t type;
    struct slice value;
};

/* Takes the first off a list. Returns 1, 0 at its end, or -EPROTO if it is cut short. */
int proxy_tlv_next(struct slice *list, struct proxy_tlv *tlv);

/* Writes version 1: UNKNOWN unless both addresses are of the internet. Returns the length. */
size_t proxy_header_write_v1(const struct proxy_header *header,
                             char out[PROXY_HEADER_V1_MAX_BYTES + 1]);

/* Writes version 2. Returns the length, or -EMSGSIZE if it does not fit. */
int proxy_header_write_v2(const struct proxy_header *header, char *out, size_t size);

/* The checksum of version 2 (CRC32c, RFC 4960 appendix B) carried on from `crc`; 0 to begin. */
uint32_t proxy_crc32c(uint32_t crc, struct slice bytes);

#endif
