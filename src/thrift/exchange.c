#include "thrift/exchange.h"

#include <errno.h>
#include <stdlib.h>

#include "thrift/info.h"

enum {
    LENGTH_BYTES = 4,
    TEXT_MAX_BYTES = 4096, /* of an exception */
    COMPACT_ID = 0x82,
    TTHEADER_MAGIC = 0x1000,
    THEADER_MAGIC = 0x0fff,
    INFO_MAX = UINT16_MAX, /* of lengths and counts of infos, and of a header's words */
    FIXED_MAX_BYTES = 64,  /* what a head has beside its texts */
    PER_FIELD_BYTES = 10,  /* lengths of a key-value, at most */
};

/* --- Reading ---------------------------------------------------------------------------------- */

static int add_info(struct thrift_message *message, const struct thrift_info *info,
                    struct headers *fields)
{
    switch (info->kind) {
    case THRIFT_INFO_TEXT_KEY:
        return headers_add(fields, info->key, info->value);
    case THRIFT_INFO_NUMBER_KEY: {
        struct slice name = arena_printf(fields->arena, "%u", info->number);
        return name.ptr ? headers_add(&message->numbers, name, info->value) : -ENOMEM;
    }
    case THRIFT_INFO_TOKEN:
        message->token = info->value;
        return 0;
    default:
        return 0;
    }
}

struct thrift_message *thrift_message_read(struct arena *arena, struct slice bytes,
                                           const struct thrift_limits *limits,
                                           struct headers *fields)
{
    const char *why;
    struct thrift_head head;
    struct thrift_info_reader reader;
    struct thrift_info info;
    struct thrift_message *message = arena_alloc(arena, sizeof(*message));
    int result = thrift_parse(&head, bytes.ptr, bytes.len, limits, &why);
    if (!message || (result != 0 && result != -EMSGSIZE)) /* a long one has a head, too */
        return NULL;
    *message = (struct thrift_message){
        .transport = head.transport,
        .protocol = head.protocol,
        .type = head.type,
        .flags = head.flags,
        .seqid = head.seqid,
        .header_seqid = head.header_seqid,
        .method = head.method,
    };
    headers_init(&message->numbers, arena);
    thrift_info_begin(&reader, head.infos, head.transport == THRIFT_THEADER);
    while (thrift_info_next(&reader, &info, &why) > 0)
        if (add_info(message, &info, fields) != 0)
            return NULL;
    return message;
}

/* --- Writing ---------------------------------------------------------------------------------- */

/* Bytes written one behind the other, where there is room for all. */
struct writer {
    unsigned char *at;
};

static void put_number(struct writer *writer, uint32_t value, unsigned count)
{
    while (count--)
        *writer->at++ = (unsigned char)(value >> count * 8);
}

static void put_varint(struct writer *writer, uint32_t value)
{
    for (; value >= 0x80; value >>= 7)
        *writer->at++ = (unsigned char)(value | 0x80);
    *writer->at++ = (unsigned char)value;
}

static void put_text(struct writer *writer, struct slice text)
{
    if (text.len)
        memcpy(writer->at, text.ptr, text.len);
    writer->at += text.len;
}

static void put_message(struct writer *writer, const struct thrift_message *message)
{
    uint32_t name_bytes = (uint32_t)message->method.len;
    if (message->protocol == THRIFT_COMPACT) {
        put_number(writer, COMPACT_ID, 1);
        put_number(writer, (uint32_t)message->type << 5 | 1, 1);
        put_varint(writer, (uint32_t)message->seqid);
        put_varint(writer, name_bytes);
        put_text(writer, message->method);
        return;
    }
    put_number(writer, 0x80010000U | message->type, 4);
    put_number(writer, name_bytes, 4);
    put_text(writer, message->method);
    put_number(writer, (uint32_t)message->seqid, 4);
}

/* Lengths are of 16 bits in TTHeader, varints in THeader. */
static void put_length(struct writer *writer, size_t length, bool varints)
{
    if (varints)
        put_varint(writer, (uint32_t)length);
    else
        put_number(writer, (uint32_t)length, 2);
}

static uint32_t count_fields(const struct headers *fields)
{
    uint32_t at = 0;
    uint32_t count = 0;
    while (headers_next(fields, &at))
        count++;
    return count;
}

static void put_fields(struct writer *writer, const struct headers *fields, bool varints)
{
    uint32_t at = 0;
    uint32_t count = count_fields(fields);
    if (!count)
        return;
    put_number(writer, THRIFT_INFO_TEXT_KEY, 1);
    put_length(writer, count, varints);
    for (const struct header *field; (field = headers_next(fields, &at));) {
        put_length(writer, field->name.len, varints);
        put_text(writer, field->name);
        put_length(writer, field->value.len, varints);
        put_text(writer, field->value);
    }
}

static void put_numbers(struct writer *writer, const struct headers *numbers)
{
    uint32_t at = 0;
    uint32_t count = count_fields(numbers);
    if (!count)
        return;
    put_number(writer, THRIFT_INFO_NUMBER_KEY, 1);
    put_number(writer, count, 2);
    for (const struct header *field; (field = headers_next(numbers, &at));) {
        put_number(writer, (uint32_t)strtoul(field->name.ptr, NULL, 10), 2);
        put_number(writer, (uint32_t)field->value.len, 2);
        put_text(writer, field->value);
    }
}

/* The area of a header, behind its fixed part: from protocol to padding. */
static void put_area(struct writer *writer, const struct thrift_message *message,
                     const struct headers *fields)
{
    bool varints = message->transport == THRIFT_THEADER;
    const unsigned char *start = writer->at;
    put_number(writer, message->protocol == THRIFT_COMPACT ? 2 : 0, 1);
    put_number(writer, 0, 1); /* transforms */
    if (fields)
        put_fields(writer, fields, varints);
    if (!varints) {
        put_numbers(writer, &message->numbers);
        if (message->token.ptr) {
            put_number(writer, THRIFT_INFO_TOKEN, 1);
            put_number(writer, (uint32_t)message->token.len, 2);
            put_text(writer, message->token);
        }
    }
    while ((writer->at - start) % 4)
        *writer->at++ = THRIFT_INFO_PADDING;
}

/* Room for the key-values, at most; -EMSGSIZE if one is too long. */
static int64_t fields_bytes(const struct headers *fields)
{
    uint32_t at = 0;
    int64_t bytes = 0;
    for (const struct header *field; (field = headers_next(fields, &at));) {
        if (field->name.len > INFO_MAX || field->value.len > INFO_MAX)
            return -EMSGSIZE;
        bytes += (int64_t)(field->name.len + field->value.len + PER_FIELD_BYTES);
    }
    return count_fields(fields) > INFO_MAX ? -EMSGSIZE : bytes;
}

/* Room for a head, at most, or -EMSGSIZE. */
static int64_t head_bytes_max(const struct thrift_message *message, const struct headers *fields)
{
    int64_t token = (int64_t)message->token.len;
    int64_t texts = fields && message->transport != THRIFT_FRAMED ? fields_bytes(fields) : 0;
    int64_t numbers = message->numbers.count ? fields_bytes(&message->numbers) : 0;
    if (texts < 0 || numbers < 0 || texts + numbers + token > INFO_MAX * 4 - FIXED_MAX_BYTES)
        return -EMSGSIZE;
    return FIXED_MAX_BYTES + (int64_t)message->method.len + token + texts + numbers;
}

static void put_header(struct writer *writer, const struct thrift_message *message,
                       const struct headers *fields)
{
    bool varints = message->transport == THRIFT_THEADER;
    put_number(writer, varints ? THEADER_MAGIC : TTHEADER_MAGIC, 2);
    put_number(writer, message->flags, 2);
    put_number(writer, (uint32_t)message->header_seqid, 4);
    struct writer size = *writer;
    writer->at += 2;
    put_area(writer, message, fields);
    put_number(&size, (uint32_t)(writer->at - size.at - 2) / 4, 2);
}

int thrift_write_head(struct arena *arena, const struct thrift_message *message,
                      const struct headers *fields, uint64_t body_bytes, struct slice *out)
{
    int64_t room = head_bytes_max(message, fields);
    if (room < 0 || body_bytes > INT32_MAX - (uint64_t)room)
        return -EMSGSIZE;
    unsigned char *start = arena_alloc(arena, (size_t)room);
    if (!start)
        return -ENOMEM;
    struct writer writer = {.at = start + LENGTH_BYTES};
    if (message->transport != THRIFT_FRAMED)
        put_header(&writer, message, fields);
    struct writer inner = writer;
    if (message->transport == THRIFT_TTHEADER_FRAMED)
        writer.at += LENGTH_BYTES;
    put_message(&writer, message);
    if (message->transport == THRIFT_TTHEADER_FRAMED)
        put_number(&inner, (uint32_t)((uint64_t)(writer.at - inner.at - LENGTH_BYTES) + body_bytes),
                   4);
    struct writer length = {.at = start};
    put_number(&length, (uint32_t)((uint64_t)(writer.at - start - LENGTH_BYTES) + body_bytes), 4);
    *out = slice_of((const char *)start, (size_t)(writer.at - start));
    return 0;
}

/* --- Exceptions ------------------------------------------------------------------------------- */

struct slice thrift_write_exception(struct arena *arena, enum thrift_protocol protocol,
                                    enum thrift_exception kind, struct slice text)
{
    if (text.len > TEXT_MAX_BYTES)
        text.len = TEXT_MAX_BYTES;
    unsigned char *start = arena_alloc(arena, FIXED_MAX_BYTES + text.len);
    if (!start)
        return slice_of(NULL, 0);
    struct writer writer = {.at = start};
    if (protocol == THRIFT_COMPACT) {
        put_number(&writer, 0x18, 1); /* field 1: a text */
        put_varint(&writer, (uint32_t)text.len);
        put_text(&writer, text);
        put_number(&writer, 0x15, 1); /* field 2, the next: a number of 32 bits, zigzag */
        put_varint(&writer, (uint32_t)kind * 2);
    } else {
        put_number(&writer, 0x0b0001, 3);
        put_number(&writer, (uint32_t)text.len, 4);
        put_text(&writer, text);
        put_number(&writer, 0x080002, 3);
        put_number(&writer, kind, 4);
    }
    put_number(&writer, 0, 1); /* the end of the struct */
    return slice_of((const char *)start, (size_t)(writer.at - start));
}

/* A method of a multiplexed service is called by "service:method", and answered by its name. One
 * behind which nothing stands is the name: a reply without any is malformed. */
struct slice thrift_own_name(struct slice method)
{
    const char *colon = memrchr(method.ptr, ':', method.len);
    size_t skip = colon ? (size_t)(colon - method.ptr) + 1 : 0;
    if (skip == method.len)
        skip = 0;
    return slice_of(method.ptr + skip, method.len - skip);
}

struct thrift_message *thrift_create_reply(const struct request *request)
{
    struct thrift_message *message = arena_alloc(request->arena, sizeof(*message));
    if (!message)
        return NULL;
    *message = *request->thrift;
    message->type = THRIFT_REPLY;
    message->method = thrift_own_name(message->method);
    message->token = slice_of(NULL, 0);
    headers_init(&message->numbers, request->arena);
    return message;
}

struct response *thrift_create_exception(struct request *request, enum thrift_exception kind,
                                         struct slice text)
{
    struct response *response = response_create(request, 500);
    struct thrift_message *message = thrift_create_reply(request);
    struct slice bytes =
        thrift_write_exception(request->arena, request->thrift->protocol, kind, text);
    if (!response || !message || !bytes.ptr)
        return NULL;
    message->type = THRIFT_EXCEPTION;
    response->thrift = message;
    body_init_bytes(&response->body, bytes);
    return response;
}

enum thrift_exception thrift_exception_of(uint16_t status)
{
    switch (status) {
    case 404:
    case 405:
        return THRIFT_UNKNOWN_METHOD;
    case 400:
    case 413:
        return THRIFT_PROTOCOL_ERROR;
    default:
        return THRIFT_INTERNAL_ERROR;
    }
}
