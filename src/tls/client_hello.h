/*
 * What a TLS client says first, read without answering it: for those who choose by it whom the
 * connection is for. Pure: bytes in, result out; no memory but what the caller gives.
 *
 *   record    type(1)=22 version(2) length(2) | a piece of the handshake message   RFC 8446, 5.1
 *   message   type(1)=1 length(3) | ClientHello                                    RFC 8446, 4.1.2
 *
 * The message may come in records of any sizes, and records in arrivals of any sizes: the reader
 * looks at each byte once and puts the message together, which then is parsed as a whole.
 */
#ifndef TLS_CLIENT_HELLO_H
#define TLS_CLIENT_HELLO_H

#include "base/slice.h"
#include "tls/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CLIENT_HELLO_MAX_BYTES = 4 + 16384,     /* of the message; those of browsers have about 2,000 */
    CLIENT_HELLO_RECORDS_MAX_BYTES = 32768, /* with the headers of its records */
};

enum client_hello_verdict {
    CLIENT_HELLO_MORE, /* it may become one */
    CLIENT_HELLO_DONE,
    CLIENT_HELLO_NOT_TLS, /* no record of a handshake's first message */
    CLIENT_HELLO_MALFORMED,
    CLIENT_HELLO_TOO_LARGE,
};

struct client_hello_reader {
    uint8_t *message;     /* CLIENT_HELLO_MAX_BYTES of the caller's; NULL: it is not kept */
    size_t message_len;   /* of it, that came */
    size_t total;         /* all that came, record headers included */
    uint16_t record_left; /* bytes of the present record that have not come */
    uint8_t header[5];    /* of the present record */
    uint8_t header_len;   /* of it, that came */
    uint8_t message_head[4];
};

/* Begins; `message` as in the reader. */
void client_hello_begin(struct client_hello_reader *reader, uint8_t *message);

/* Reads what came next; once the verdict is another than CLIENT_HELLO_MORE, nothing more may be
 * given. What comes behind the message is not looked at. */
enum client_hello_verdict client_hello_read(struct client_hello_reader *reader, struct slice bytes);

/* A hello's parts. Slices lie in the message; lists are as on the wire, without their length. */
struct client_hello {
    uint16_t legacy_version;       /* 0x0303 of all that know TLS 1.2 */
    char name[TLS_NAME_MAX_BYTES]; /* SNI, in lower case; "" if none was sent */
    struct slice session_id;
    struct slice ciphers;    /* 2 bytes each */
    struct slice extensions; /* the whole of them: client_hello_next_extension */
    struct slice versions;   /* supported_versions, 2 bytes each; empty if not sent, as all below */
    struct slice alpn;       /* a length byte before each name */
    struct slice groups;     /* 2 bytes each */
    struct slice point_formats;        /* 1 byte each */
    struct slice signature_algorithms; /* 2 bytes each */
};

/* Parses a complete message. Returns 0, or -EPROTO when it is malformed, which includes names that
 * are none (as tls.h judges them) and the same extension twice. */
int client_hello_parse(struct slice message, struct client_hello *hello);

/* Takes the next extension off the front of a hello's extensions; false at their end. */
bool client_hello_next_extension(struct slice *rest, uint16_t *type, struct slice *data);

/* Takes the next two-byte number off the front of a list; false at its end. */
bool client_hello_next_number(struct slice *rest, uint16_t *number);

/* The highest version that it offers: of the list, else the legacy one. */
uint16_t client_hello_version(const struct client_hello *hello);

/* A value that stands for none, sent so that servers learn to pass over it (RFC 8701). */
static inline bool client_hello_is_grease(uint16_t number)
{
    return (number & 0x0f0f) == 0x0a0a && number >> 8 == (number & 0xff);
}

#endif
