#include "http/h2_fields.h"

#define BIT(id) (UINT64_C(1) << (id))

enum { FIRST_CAPACITY = 16 };

static const uint64_t of_connection = BIT(HEADER_CONNECTION) | BIT(HEADER_KEEP_ALIVE) |
                                      BIT(HEADER_PROXY_CONNECTION) | BIT(HEADER_TRANSFER_ENCODING) |
                                      BIT(HEADER_UPGRADE) | BIT(HEADER_HOST);

static void grow(struct h2_fields *fields)
{
    size_t capacity = fields->capacity ? fields->capacity * 2 : FIRST_CAPACITY;
    nghttp2_nv *items = arena_alloc(fields->arena, capacity * sizeof(*items));
    if (!items) {
        fields->failed = true;
        return;
    }
    if (fields->count)
        memcpy(items, fields->items, fields->count * sizeof(*items));
    fields->items = items;
    fields->capacity = capacity;
}

void h2_fields_add(struct h2_fields *fields, struct slice name, struct slice value)
{
    if (fields->count == fields->capacity)
        grow(fields);
    if (fields->failed)
        return;
    fields->items[fields->count++] = (nghttp2_nv){
        .name = (uint8_t *)name.ptr,
        .namelen = name.len,
        .value = (uint8_t *)value.ptr,
        .valuelen = value.len,
        .flags = NGHTTP2_NV_FLAG_NONE,
    };
}

void h2_fields_add_end_to_end(struct h2_fields *fields, const struct headers *headers,
                              uint64_t skip)
{
    uint64_t left_out = of_connection | skip;
    bool options = headers_find_id(headers, HEADER_CONNECTION, NULL) != NULL;
    uint32_t at = 0;
    const struct header *header;
    while ((header = headers_next(headers, &at))) {
        if (left_out >> header->id & 1)
            continue;
        if (header->id == HEADER_TE && !slice_equal_nocase(header->value, SLICE("trailers")))
            continue;
        if (options && headers_has_token(headers, HEADER_CONNECTION, header->name))
            continue;
        h2_fields_add(fields, header->name, header->value);
    }
}
