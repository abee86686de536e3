#include "thrift/message.h"

#include "thrift/cursor.h"
#include "thrift/info.h"

enum {
    LENGTH_BYTES = 4,
    BINARY_VERSION = 0x8001,
    COMPACT_ID = 0x82,
    COMPACT_VERSION = 1,
    TTHEADER_MAGIC = 0x1000,
    THEADER_MAGIC = 0x0fff,
    TTHEADER_STREAMING = 2, /* a flag of frames that are no messages */
};

struct parser {
    struct cursor cursor;
    struct thrift_head *head;
    const struct thrift_limits *limits;
    const char **why;
};

static int refuse(struct parser *parser, const char *why)
{
    *parser->why = why;
    return -EPROTO;
}

/* What went wrong with the cursor, if anything. */
static int check(struct parser *parser, const char *cut_short)
{
    if (parser->cursor.error == -EPROTO)
        return refuse(parser, cut_short);
    return parser->cursor.error;
}

/* --- The beginning of a message --------------------------------------------------------------- */

/* A name stands in paths and logs. */
static bool name_valid(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if ((unsigned char)name.ptr[i] <= ' ' || (unsigned char)name.ptr[i] >= 0x7f)
            return false;
    return name.len > 0;
}

static int parse_name(struct parser *parser, uint32_t len)
{
    if (!parser->cursor.error && len > THRIFT_NAME_MAX_BYTES)
        return refuse(parser, "the name of the method is too long");
    parser->head->method = cursor_text(&parser->cursor, len);
    return check(parser, "the message is cut short by its frame");
}

static int finish_message(struct parser *parser, uint32_t type)
{
    if (type < THRIFT_CALL || type > THRIFT_ONEWAY)
        return refuse(parser, "the message is of a type that is not known");
    if (!name_valid(parser->head->method))
        return refuse(parser, "the name of the method is empty or has bytes that no name has");
    parser->head->type = (enum thrift_type)type;
    return 0;
}

static int parse_binary(struct parser *parser)
{
    struct cursor *cursor = &parser->cursor;
    uint32_t version = cursor_number(cursor, 2);
    uint32_t type = cursor_number(cursor, 2);
    if (!cursor->error && version != BINARY_VERSION)
        return refuse(parser,
                      "the message is of a version of the binary protocol that is not known");
    int result = parse_name(parser, cursor_number(cursor, 4));
    parser->head->seqid = (int32_t)cursor_number(cursor, 4);
    if (result == 0)
        result = check(parser, "the message is cut short by its frame");
    parser->head->protocol = THRIFT_BINARY;
    return result == 0 ? finish_message(parser, type) : result;
}

static int parse_compact(struct parser *parser)
{
    struct cursor *cursor = &parser->cursor;
    cursor_number(cursor, 1);
    uint32_t version = cursor_number(cursor, 1);
    if (!cursor->error && (version & 0x1f) != COMPACT_VERSION)
        return refuse(parser,
                      "the message is of a version of the compact protocol that is not known");
    parser->head->seqid = (int32_t)cursor_varint(cursor);
    int result = parse_name(parser, cursor_varint(cursor));
    parser->head->protocol = THRIFT_COMPACT;
    return result == 0 ? finish_message(parser, version >> 5) : result;
}

/* The next byte, which stays. */
static uint32_t peek(struct parser *parser)
{
    return cursor_has(&parser->cursor, 1) ? parser->cursor.bytes[parser->cursor.at] : 0;
}

static int parse_message(struct parser *parser)
{
    uint32_t first = peek(parser);
    int result = check(parser, "the frame has no message");
    if (result < 0)
        return result;
    if (first == BINARY_VERSION >> 8)
        return parse_binary(parser);
    if (first == COMPACT_ID)
        return parse_compact(parser);
    if (first == 0)
        return refuse(parser,
                      "the message is in the binary protocol without a version, which is not "
                      "taken: make the client write it strictly");
    return refuse(parser, "the frame has no message in the binary or the compact protocol");
}

/* --- Headers ---------------------------------------------------------------------------------- */

static int check_infos(struct parser *parser, bool varints)
{
    struct thrift_info_reader reader;
    struct thrift_info info;
    uint32_t count = 0;
    int result;
    thrift_info_begin(&reader, parser->head->infos, varints);
    while ((result = thrift_info_next(&reader, &info, parser->why)) > 0)
        if (++count > parser->limits->field_count_max)
            return refuse(parser, "the header has too many key-values");
    return result;
}

/* The area behind the fixed part of a header: protocol, transforms, infos. */
static int parse_area(struct parser *parser, struct slice area, uint32_t *protocol)
{
    bool varints = parser->head->transport == THRIFT_THEADER;
    struct cursor cursor = {
        .bytes = (const unsigned char *)area.ptr, .len = area.len, .end = area.len};
    *protocol = varints ? cursor_varint(&cursor) : cursor_number(&cursor, 1);
    uint32_t transforms = varints ? cursor_varint(&cursor) : cursor_number(&cursor, 1);
    if (cursor.error)
        return refuse(parser, "the header is too short");
    if (transforms)
        return refuse(parser, "the header asks for transforms, which are not taken here: make the "
                              "client send without compression");
    parser->head->infos = slice_of(area.ptr + cursor.at, area.len - cursor.at);
    return check_infos(parser, varints);
}

/* TTHeader may have a frame around the message. */
static int parse_inner_length(struct parser *parser)
{
    struct cursor *cursor = &parser->cursor;
    if (parser->head->transport != THRIFT_TTHEADER || peek(parser) >= 0x80 || cursor->error)
        return 0;
    uint32_t length = cursor_number(cursor, LENGTH_BYTES);
    if (!cursor->error && length != cursor->end - cursor->at)
        return refuse(parser, "the frame inside the header's has another length");
    parser->head->transport = THRIFT_TTHEADER_FRAMED;
    return 0;
}

static int parse_header(struct parser *parser)
{
    static const uint32_t protocols[] = {[THRIFT_BINARY] = 0, [THRIFT_COMPACT] = 2};
    struct cursor *cursor = &parser->cursor;
    struct thrift_head *head = parser->head;
    uint32_t protocol = 0;
    head->flags = (uint16_t)cursor_number(cursor, 2);
    head->header_seqid = (int32_t)cursor_number(cursor, 4);
    uint32_t area_bytes = cursor_number(cursor, 2) * 4;
    if (!cursor->error && area_bytes > parser->limits->head_max_bytes)
        return refuse(parser, "the header is too long");
    struct slice area = cursor_text(cursor, area_bytes);
    int result = check(parser, "the header is cut short by its frame");
    if (result == 0 && head->transport == THRIFT_TTHEADER && head->flags & TTHEADER_STREAMING)
        return refuse(parser, "the frame is one of a stream, which is not taken here");
    if (result == 0)
        result = parse_area(parser, area, &protocol);
    if (result == 0)
        result = parse_inner_length(parser);
    if (result == 0)
        result = parse_message(parser);
    if (result == 0 && protocols[head->protocol] != protocol)
        return refuse(parser, "the header says another protocol than the message is in");
    return result;
}

/* --- The frame -------------------------------------------------------------------------------- */

/* What is not framed begins with the message, or is something else. */
static const char *unframed(uint32_t length)
{
    if (length >> 16 == BINARY_VERSION || length >> 24 == COMPACT_ID)
        return "the message is not framed: make the client use the framed transport";
    return "this is not Thrift: it begins with no length of a frame";
}

static int parse_frame(struct parser *parser)
{
    struct cursor *cursor = &parser->cursor;
    uint32_t length = cursor_number(cursor, LENGTH_BYTES);
    if (cursor->error)
        return cursor->error;
    if (length > INT32_MAX)
        return refuse(parser, unframed(length));
    cursor->end = LENGTH_BYTES + (size_t)length;
    if (peek(parser) != TTHEADER_MAGIC >> 8 && peek(parser) != THEADER_MAGIC >> 8)
        return parse_message(parser);
    uint32_t magic = cursor_number(cursor, 2);
    if (!cursor->error && magic != TTHEADER_MAGIC && magic != THEADER_MAGIC)
        return refuse(parser, "the frame has no message in the binary or the compact protocol");
    parser->head->transport = magic == THEADER_MAGIC ? THRIFT_THEADER : THRIFT_TTHEADER;
    return parse_header(parser);
}

int thrift_parse(struct thrift_head *head, const char *bytes, size_t len,
                 const struct thrift_limits *limits, const char **why)
{
    *head = (struct thrift_head){.transport = THRIFT_FRAMED};
    *why = "";
    struct parser parser = {
        .cursor = {.bytes = (const unsigned char *)bytes, .len = len, .end = SIZE_MAX},
        .head = head,
        .limits = limits,
        .why = why,
    };
    int result = parse_frame(&parser);
    head->needed_bytes = (uint32_t)parser.cursor.needed;
    if (result < 0)
        return result;
    head->head_bytes = (uint32_t)parser.cursor.at;
    head->body_bytes = (uint32_t)(parser.cursor.end - parser.cursor.at);
    if (parser.cursor.end - LENGTH_BYTES <= limits->frame_max_bytes)
        return 0;
    *why = "the frame is longer than is taken here (frame_max)";
    return -EMSGSIZE;
}

/* --- Names ------------------------------------------------------------------------------------ */

const char *thrift_transport_name(enum thrift_transport transport)
{
    switch (transport) {
    case THRIFT_TTHEADER:
    case THRIFT_TTHEADER_FRAMED:
        return "ttheader";
    case THRIFT_THEADER:
        return "theader";
    default:
        return "framed";
    }
}

const char *thrift_protocol_name(enum thrift_protocol protocol)
{
    return protocol == THRIFT_COMPACT ? "compact" : "binary";
}

const char *thrift_type_name(enum thrift_type type)
{
    switch (type) {
    case THRIFT_CALL:
        return "call";
    case THRIFT_REPLY:
        return "reply";
    case THRIFT_EXCEPTION:
        return "exception";
    default:
        return "oneway";
    }
}
