/*
 * What a client speaks, by its first bytes. Pure.
 *
 *   TLS     a handshake's record, in it a ClientHello
 *   HTTP/2  "PRI * HTTP/2.0", the preface of clients with prior knowledge (RFC 9113, 3.4)
 *   HTTP/1  "GET /", "OPTIONS * ", "CONNECT host:443", "GET http://": a method of capitals, and a
 *           target of a form that HTTP has (RFC 9112, 3.2). Other protocols of lines ("EHLO name",
 *           "NICK name", "INVITE sip:", "SSH-2.0-...") have none of these.
 */
#ifndef L4_DETECT_H
#define L4_DETECT_H

#include "base/slice.h"

enum { L4_DETECT_MAX_BYTES = 48 }; /* more are never needed */

enum l4_protocol {
    L4_PROTOCOL_UNDECIDED, /* more bytes are needed */
    L4_PROTOCOL_TLS,
    L4_PROTOCOL_HTTP,
    L4_PROTOCOL_H2C,
    L4_PROTOCOL_OTHER,
    L4_PROTOCOL_COUNT
};

/* All that came, or the first L4_DETECT_MAX_BYTES of it. */
enum l4_protocol l4_detect(struct slice bytes);

/* "tls", "http", "h2c", "other". */
const char *l4_protocol_name(enum l4_protocol protocol);

#endif
