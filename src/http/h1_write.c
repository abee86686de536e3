#include "http/h1_write.h"

#include "http/h1_chunk.h"

#define BIT(id) (UINT64_C(1) << (id))

/* Fields that concern one connection only (RFC 9110 section 7.6.1), and those that the writer of
 * the head states anew. */
static const uint64_t hop_by_hop = BIT(HEADER_CONNECTION) | BIT(HEADER_KEEP_ALIVE) |
                                   BIT(HEADER_PROXY_CONNECTION) | BIT(HEADER_TE) |
                                   BIT(HEADER_TRANSFER_ENCODING) | BIT(HEADER_UPGRADE) |
                                   BIT(HEADER_CONTENT_LENGTH);

void h1_out_reserve(struct h1_out *out, size_t more)
{
    if (out->failed || out->capacity - out->len >= more)
        return;
    size_t capacity = out->capacity * 2 > out->len + more ? out->capacity * 2 : out->len + more;
    char *data = arena_alloc(out->arena, capacity);
    if (!data) {
        out->failed = true;
        return;
    }
    if (out->len)
        memcpy(data, out->data, out->len);
    out->data = data;
    out->capacity = capacity;
}

void h1_out_append(struct h1_out *out, struct slice bytes)
{
    h1_out_reserve(out, bytes.len);
    if (out->failed || !bytes.len)
        return;
    memcpy(out->data + out->len, bytes.ptr, bytes.len);
    out->len += bytes.len;
}

void h1_out_number(struct h1_out *out, uint64_t number)
{
    char digits[20];
    unsigned at = sizeof(digits);
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    h1_out_append(out, slice_of(digits + at, sizeof(digits) - at));
}

void h1_out_field(struct h1_out *out, struct slice name, struct slice value)
{
    h1_out_reserve(out, name.len + value.len + 4);
    if (out->failed)
        return;
    char *at = out->data + out->len;
    memcpy(at, name.ptr, name.len);
    at += name.len;
    *at++ = ':';
    *at++ = ' ';
    if (value.len)
        memcpy(at, value.ptr, value.len);
    at += value.len;
    *at++ = '\r';
    *at++ = '\n';
    out->len = (size_t)(at - out->data);
}

/* Does a Connection field name this one? */
static bool named_by_connection(const struct headers *headers, const struct header *header)
{
    return headers_has_token(headers, HEADER_CONNECTION, header->name);
}

void h1_out_end_to_end_fields(struct h1_out *out, const struct headers *headers,
                              bool has_connection_options, uint64_t skip)
{
    uint64_t left_out = hop_by_hop | skip;
    uint32_t at = 0;
    const struct header *header;
    while ((header = headers_next(headers, &at))) {
        if (left_out >> header->id & 1)
            continue;
        if (has_connection_options && named_by_connection(headers, header))
            continue;
        h1_out_field(out, header->name, header->value);
    }
}

void h1_out_status_line(struct h1_out *out, uint16_t status)
{
    h1_out_append(out, SLICE("HTTP/1.1 "));
    h1_out_number(out, status);
    h1_out_append(out, SLICE(" "));
    h1_out_append(out, http_reason_phrase(status));
    h1_out_append(out, SLICE("\r\n"));
}
