#include "tls/client_hello.h"

#include <errno.h>

enum {
    HANDSHAKE = 22,
    CLIENT_HELLO = 1,
    RECORD_HEADER_BYTES = 5,
    MESSAGE_HEADER_BYTES = 4,
    RANDOM_BYTES = 32,
    SESSION_ID_MAX_BYTES = 32,
};

/* Extensions that are read (IANA, TLS ExtensionType). */
enum {
    SERVER_NAME = 0,
    SUPPORTED_GROUPS = 10,
    EC_POINT_FORMATS = 11,
    SIGNATURE_ALGORITHMS = 13,
    ALPN = 16,
    SUPPORTED_VERSIONS = 43,
};

static uint16_t number_at(const void *bytes)
{
    const uint8_t *at = bytes;
    return (uint16_t)(at[0] << 8 | at[1]);
}

/* --- Records ---------------------------------------------------------------------------------- */

void client_hello_begin(struct client_hello_reader *reader, uint8_t *message)
{
    *reader = (struct client_hello_reader){.message = message};
}

/* Length of the whole message; its head has come. */
static size_t message_total(const struct client_hello_reader *reader)
{
    const uint8_t *head = reader->message_head;
    return MESSAGE_HEADER_BYTES + ((size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3]);
}

/* A byte of a record's header; the first ones decide whether it is TLS at all. */
static enum client_hello_verdict take_header(struct client_hello_reader *reader, uint8_t byte)
{
    uint8_t *header = reader->header;
    bool first = reader->message_len == 0;
    header[reader->header_len++] = byte;
    if (header[0] != HANDSHAKE || (reader->header_len > 1 && header[1] != 3))
        return first ? CLIENT_HELLO_NOT_TLS : CLIENT_HELLO_MALFORMED;
    if (reader->header_len < RECORD_HEADER_BYTES)
        return CLIENT_HELLO_MORE;
    reader->record_left = number_at(header + 3);
    if (reader->record_left == 0 || reader->record_left > TLS_RECORD_MAX_BYTES)
        return first ? CLIENT_HELLO_NOT_TLS : CLIENT_HELLO_MALFORMED;
    return CLIENT_HELLO_MORE;
}

static enum client_hello_verdict judge_message(const struct client_hello_reader *reader)
{
    if (reader->message_head[0] != CLIENT_HELLO)
        return CLIENT_HELLO_NOT_TLS;
    if (reader->message_len < MESSAGE_HEADER_BYTES)
        return CLIENT_HELLO_MORE;
    if (message_total(reader) > CLIENT_HELLO_MAX_BYTES)
        return CLIENT_HELLO_TOO_LARGE;
    return reader->message_len == message_total(reader) ? CLIENT_HELLO_DONE : CLIENT_HELLO_MORE;
}

/* How much of the message is taken before it is judged again: its first byte, its head, all of it.
 */
static size_t next_step(const struct client_hello_reader *reader)
{
    if (reader->message_len == 0)
        return 1;
    if (reader->message_len < MESSAGE_HEADER_BYTES)
        return MESSAGE_HEADER_BYTES - reader->message_len;
    return message_total(reader) - reader->message_len;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* A piece of the message from a record; returns how much of it was taken. */
static size_t take_piece(struct client_hello_reader *reader, struct slice piece)
{
    size_t room = CLIENT_HELLO_RECORDS_MAX_BYTES - reader->total;
    size_t len = least(least(piece.len, room), least(reader->record_left, next_step(reader)));
    if (reader->message_len < MESSAGE_HEADER_BYTES)
        memcpy(reader->message_head + reader->message_len, piece.ptr, len);
    if (reader->message)
        memcpy(reader->message + reader->message_len, piece.ptr, len);
    reader->message_len += len;
    reader->record_left = (uint16_t)(reader->record_left - len);
    return len;
}

enum client_hello_verdict client_hello_read(struct client_hello_reader *reader, struct slice bytes)
{
    enum client_hello_verdict verdict = CLIENT_HELLO_MORE;
    while (bytes.len && verdict == CLIENT_HELLO_MORE) {
        size_t len = 1;
        if (reader->record_left) {
            len = take_piece(reader, bytes);
            verdict = judge_message(reader);
        } else {
            if (reader->header_len == RECORD_HEADER_BYTES)
                reader->header_len = 0;
            verdict = take_header(reader, (uint8_t)bytes.ptr[0]);
        }
        bytes = slice_of(bytes.ptr + len, bytes.len - len);
        reader->total += len;
        if (verdict == CLIENT_HELLO_MORE && reader->total >= CLIENT_HELLO_RECORDS_MAX_BYTES)
            verdict = CLIENT_HELLO_TOO_LARGE;
    }
    return verdict;
}

/* --- The message ------------------------------------------------------------------------------ */

static bool take(struct slice *from, size_t len, struct slice *taken)
{
    if (from->len < len)
        return false;
    *taken = slice_of(from->ptr, len);
    *from = slice_of(from->ptr + len, from->len - len);
    return true;
}

/* Takes a vector behind its length (of 1 or 2 bytes) off the front. */
static bool take_vector(struct slice *from, unsigned length_bytes, struct slice *vector)
{
    struct slice length;
    if (!take(from, length_bytes, &length))
        return false;
    return take(from, length_bytes == 1 ? (uint8_t)length.ptr[0] : number_at(length.ptr), vector);
}

/* The only vector of an extension, of items of a size, at least one. */
static bool read_list(struct slice data, unsigned length_bytes, unsigned item_bytes,
                      struct slice *list)
{
    return take_vector(&data, length_bytes, list) && data.len == 0 && list->len > 0 &&
           list->len % item_bytes == 0;
}

/* A list of one host name (RFC 6066, 3): no other kind was ever defined. */
static bool read_name(struct slice data, char name[TLS_NAME_MAX_BYTES])
{
    enum { HOST_NAME = 0 };
    struct slice list;
    struct slice kind;
    struct slice text;
    if (!read_list(data, 2, 1, &list) || !take(&list, 1, &kind) || kind.ptr[0] != HOST_NAME ||
        !take_vector(&list, 2, &text) || list.len || !tls_name_valid(text.ptr, text.len))
        return false;
    text = tls_name_bare(text);
    for (size_t i = 0; i < text.len; i++)
        name[i] = ascii_lower(text.ptr[i]);
    return true;
}

static bool read_alpn(struct slice data, struct slice *alpn)
{
    struct slice protocol;
    if (!read_list(data, 2, 1, alpn))
        return false;
    for (struct slice rest = *alpn; rest.len;)
        if (!take_vector(&rest, 1, &protocol) || !protocol.len)
            return false;
    return true;
}

static bool read_extension(struct client_hello *hello, uint16_t type, struct slice data)
{
    switch (type) {
    case SERVER_NAME:
        return read_name(data, hello->name);
    case SUPPORTED_GROUPS:
        return read_list(data, 2, 2, &hello->groups);
    case EC_POINT_FORMATS:
        return read_list(data, 1, 1, &hello->point_formats);
    case SIGNATURE_ALGORITHMS:
        return read_list(data, 2, 2, &hello->signature_algorithms);
    case ALPN:
        return read_alpn(data, &hello->alpn);
    case SUPPORTED_VERSIONS:
        return read_list(data, 1, 2, &hello->versions);
    default:
        return true;
    }
}

/* Each type may come once (RFC 8446, 4.2); a bit for each of all 65,536 tells in one pass, however
 * many a hostile client sends. */
static bool is_repeated(uint8_t *seen, uint16_t type)
{
    uint8_t bit = (uint8_t)(1U << (type & 7));
    bool repeated = seen[type >> 3] & bit;
    seen[type >> 3] |= bit;
    return repeated;
}

static bool read_extensions(struct client_hello *hello)
{
    uint8_t seen[65536 / 8] = {0};
    struct slice rest = hello->extensions;
    struct slice data;
    uint16_t type;
    while (client_hello_next_extension(&rest, &type, &data))
        if (is_repeated(seen, type) || !read_extension(hello, type, data))
            return false;
    return rest.len == 0;
}

int client_hello_parse(struct slice message, struct client_hello *hello)
{
    struct slice head;
    struct slice version;
    struct slice random;
    struct slice compressions;
    struct slice rest = message;
    memset(hello, 0, sizeof(*hello));
    if (!take(&rest, MESSAGE_HEADER_BYTES, &head) || head.ptr[0] != CLIENT_HELLO ||
        !take(&rest, 2, &version) || !take(&rest, RANDOM_BYTES, &random) ||
        !take_vector(&rest, 1, &hello->session_id) ||
        hello->session_id.len > SESSION_ID_MAX_BYTES || !take_vector(&rest, 2, &hello->ciphers) ||
        !hello->ciphers.len || hello->ciphers.len % 2 || !take_vector(&rest, 1, &compressions) ||
        !compressions.len)
        return -EPROTO;
    hello->legacy_version = number_at(version.ptr);
    if (rest.len == 0) /* of before there were extensions */
        return 0;
    if (!take_vector(&rest, 2, &hello->extensions) || rest.len || !read_extensions(hello))
        return -EPROTO;
    return 0;
}

bool client_hello_next_extension(struct slice *rest, uint16_t *type, struct slice *data)
{
    struct slice from = *rest;
    struct slice number;
    if (!take(&from, 2, &number) || !take_vector(&from, 2, data))
        return false;
    *type = number_at(number.ptr);
    *rest = from;
    return true;
}

bool client_hello_next_number(struct slice *rest, uint16_t *number)
{
    struct slice bytes;
    if (!take(rest, 2, &bytes))
        return false;
    *number = number_at(bytes.ptr);
    return true;
}

uint16_t client_hello_version(const struct client_hello *hello)
{
    struct slice rest = hello->versions;
    uint16_t highest = 0;
    uint16_t version;
    while (client_hello_next_number(&rest, &version))
        if (!client_hello_is_grease(version) && version > highest)
            highest = version;
    return highest ? highest : hello->legacy_version;
}
