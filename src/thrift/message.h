/*
 * The heads of Thrift messages: what frames a message, and its beginning, up to the arguments,
 * which nobody here looks into. Pure: bytes in, result out.
 *
 *   framed          length | message
 *   TTHeader        length | 0x1000 flags seqid size | protocol transforms infos padding | message
 *   TTHeader framed the same with the message's length before the message
 *   THeader         length | 0x0fff flags seqid size | the same in varints             | message
 *
 *   message, binary   0x80 0x01 0x00 type | length name | seqid | arguments
 *   message, compact  0x82 type<<5|1 | varint seqid | varint length name | arguments
 */
#ifndef THRIFT_MESSAGE_H
#define THRIFT_MESSAGE_H

#include "base/slice.h"
#include "http/headers.h"

#include <stdbool.h>
#include <stdint.h>

enum thrift_transport {
    THRIFT_FRAMED,
    THRIFT_TTHEADER,        /* ByteDance's */
    THRIFT_TTHEADER_FRAMED, /* the same around a frame */
    THRIFT_THEADER,         /* Apache's */
};

enum thrift_protocol { THRIFT_BINARY, THRIFT_COMPACT };

/* As on the wire. */
enum thrift_type { THRIFT_CALL = 1, THRIFT_REPLY = 2, THRIFT_EXCEPTION = 3, THRIFT_ONEWAY = 4 };

enum {
    THRIFT_NAME_MAX_BYTES = 1024,
    THRIFT_HEADER_OUT_OF_ORDER = 1, /* a flag: replies may come in any order */
};

struct thrift_limits {
    uint32_t frame_max_bytes; /* without the length itself */
    uint32_t head_max_bytes;
    uint32_t field_count_max; /* key-values of a header */
};

struct thrift_head {
    enum thrift_transport transport;
    enum thrift_protocol protocol;
    enum thrift_type type;
    uint16_t flags;        /* of the header */
    int32_t seqid;         /* of the message */
    int32_t header_seqid;  /* of the header */
    struct slice method;   /* borrowed from the parsed bytes, as is the next */
    struct slice infos;    /* the header's, padding included: see info.h */
    uint32_t head_bytes;   /* up to the arguments */
    uint32_t body_bytes;   /* the arguments: the rest of the frame */
    uint32_t needed_bytes; /* with -EAGAIN: how many there must be before another look; never more
                              than the head has */
};

/* Parses the head at the start of `bytes`. Returns 0, -EAGAIN when more bytes are needed, -EPROTO
 * with *why (static text) when it is malformed or nothing that is taken here, or -EMSGSIZE, with
 * *why and a complete head, when the frame is too long. */
int thrift_parse(struct thrift_head *head, const char *bytes, size_t len,
                 const struct thrift_limits *limits, const char **why);

const char *thrift_transport_name(enum thrift_transport transport);
const char *thrift_protocol_name(enum thrift_protocol protocol);
const char *thrift_type_name(enum thrift_type type);

#endif
