#include "http/headers.h"

#include <assert.h>
#include <errno.h>

enum { FIRST_CAPACITY = 16 };

/* Names that have an id, each in lower case. */
static const struct slice names[HEADER_ID_COUNT] = {
    [HEADER_ACCEPT_ENCODING] = SLICE_INIT("accept-encoding"),
    [HEADER_AUTHORIZATION] = SLICE_INIT("authorization"),
    [HEADER_CONNECTION] = SLICE_INIT("connection"),
    [HEADER_CONTENT_ENCODING] = SLICE_INIT("content-encoding"),
    [HEADER_CONTENT_LENGTH] = SLICE_INIT("content-length"),
    [HEADER_CONTENT_TYPE] = SLICE_INIT("content-type"),
    [HEADER_COOKIE] = SLICE_INIT("cookie"),
    [HEADER_DATE] = SLICE_INIT("date"),
    [HEADER_EXPECT] = SLICE_INIT("expect"),
    [HEADER_FORWARDED] = SLICE_INIT("forwarded"),
    [HEADER_HOST] = SLICE_INIT("host"),
    [HEADER_KEEP_ALIVE] = SLICE_INIT("keep-alive"),
    [HEADER_LOCATION] = SLICE_INIT("location"),
    [HEADER_PROXY_AUTHENTICATE] = SLICE_INIT("proxy-authenticate"),
    [HEADER_PROXY_AUTHORIZATION] = SLICE_INIT("proxy-authorization"),
    [HEADER_PROXY_CONNECTION] = SLICE_INIT("proxy-connection"),
    [HEADER_RETRY_AFTER] = SLICE_INIT("retry-after"),
    [HEADER_SERVER] = SLICE_INIT("server"),
    [HEADER_SET_COOKIE] = SLICE_INIT("set-cookie"),
    [HEADER_TE] = SLICE_INIT("te"),
    [HEADER_TRAILER] = SLICE_INIT("trailer"),
    [HEADER_TRANSFER_ENCODING] = SLICE_INIT("transfer-encoding"),
    [HEADER_UPGRADE] = SLICE_INIT("upgrade"),
    [HEADER_VIA] = SLICE_INIT("via"),
    [HEADER_X_FORWARDED_FOR] = SLICE_INIT("x-forwarded-for"),
    [HEADER_X_FORWARDED_HOST] = SLICE_INIT("x-forwarded-host"),
    [HEADER_X_FORWARDED_PROTO] = SLICE_INIT("x-forwarded-proto"),
};

/* Ids by length of the name; zero ends a row. Most names fail here without a comparison. */
static const uint8_t ids_by_length[20][5] = {
    [2] = {HEADER_TE},
    [3] = {HEADER_VIA},
    [4] = {HEADER_HOST, HEADER_DATE},
    [6] = {HEADER_COOKIE, HEADER_SERVER, HEADER_EXPECT},
    [7] = {HEADER_UPGRADE, HEADER_TRAILER},
    [8] = {HEADER_LOCATION},
    [9] = {HEADER_FORWARDED},
    [10] = {HEADER_CONNECTION, HEADER_KEEP_ALIVE, HEADER_SET_COOKIE},
    [11] = {HEADER_RETRY_AFTER},
    [12] = {HEADER_CONTENT_TYPE},
    [13] = {HEADER_AUTHORIZATION},
    [14] = {HEADER_CONTENT_LENGTH},
    [15] = {HEADER_ACCEPT_ENCODING, HEADER_X_FORWARDED_FOR},
    [16] = {HEADER_CONTENT_ENCODING, HEADER_X_FORWARDED_HOST, HEADER_PROXY_CONNECTION},
    [17] = {HEADER_TRANSFER_ENCODING, HEADER_X_FORWARDED_PROTO},
    [18] = {HEADER_PROXY_AUTHENTICATE},
    [19] = {HEADER_PROXY_AUTHORIZATION},
};

static_assert(HEADER_ID_COUNT <= 64, "ids are bits of headers.present");

void headers_init(struct headers *headers, struct arena *arena)
{
    *headers = (struct headers){.arena = arena};
}

/* Is it the same but for case, byte by byte? Only letters have a case: they are those bytes of a
 * name, in lower case, that have the bit 0x40. */
static bool same_word(const char *text, const char *lower)
{
    uint64_t a, b;
    memcpy(&a, text, sizeof(a));
    memcpy(&b, lower, sizeof(b));
    return ((a ^ b) & ~(b >> 1 & UINT64_C(0x2020202020202020))) == 0;
}

static bool same_half(const char *text, const char *lower)
{
    uint32_t a, b;
    memcpy(&a, text, sizeof(a));
    memcpy(&b, lower, sizeof(b));
    return ((a ^ b) & ~(b >> 1 & UINT32_C(0x20202020))) == 0;
}

/* As slice_equal_nocase, of texts of the same length; the last bytes may be compared twice. */
static bool is_named(struct slice text, struct slice lower)
{
    enum { WORD = sizeof(uint64_t), HALF = sizeof(uint32_t) };
    size_t len = text.len;
    if (len < HALF)
        return slice_equal_nocase(text, lower);
    if (len < WORD)
        return same_half(text.ptr, lower.ptr) &&
               same_half(text.ptr + len - HALF, lower.ptr + len - HALF);
    for (size_t i = 0; i < len - WORD; i += WORD)
        if (!same_word(text.ptr + i, lower.ptr + i))
            return false;
    return same_word(text.ptr + len - WORD, lower.ptr + len - WORD);
}

enum header_id header_id_of(struct slice name)
{
    if (name.len >= sizeof(ids_by_length) / sizeof(ids_by_length[0]))
        return HEADER_OTHER;
    for (const uint8_t *id = ids_by_length[name.len]; *id; id++)
        if (is_named(name, names[*id]))
            return (enum header_id) * id;
    return HEADER_OTHER;
}

static int grow(struct headers *headers)
{
    uint32_t capacity = headers->capacity ? headers->capacity * 2 : FIRST_CAPACITY;
    struct header *items = arena_alloc(headers->arena, capacity * sizeof(*items));
    if (!items)
        return -ENOMEM;
    if (headers->count)
        memcpy(items, headers->items, headers->count * sizeof(*items));
    headers->items = items;
    headers->capacity = capacity;
    return 0;
}

int headers_add_id(struct headers *headers, enum header_id id, struct slice name,
                   struct slice value)
{
    if (headers->count == headers->capacity && grow(headers) != 0)
        return -ENOMEM;
    headers->items[headers->count++] =
        (struct header){.name = name, .value = value, .id = (uint16_t)id};
    headers->present |= UINT64_C(1) << id;
    return 0;
}

int headers_add(struct headers *headers, struct slice name, struct slice value)
{
    return headers_add_id(headers, header_id_of(name), name, value);
}

static uint32_t index_behind(const struct headers *headers, const struct header *from)
{
    return from ? (uint32_t)(from - headers->items) + 1 : 0;
}

struct header *headers_find_id(const struct headers *headers, enum header_id id,
                               const struct header *from)
{
    if (!(headers->present >> id & 1))
        return NULL;
    for (uint32_t i = index_behind(headers, from); i < headers->count; i++)
        if (headers->items[i].id == id && !headers->items[i].removed)
            return &headers->items[i];
    return NULL;
}

/* The next field of that name, whose id is known. */
static struct header *find(const struct headers *headers, enum header_id id, struct slice name,
                           const struct header *from)
{
    if (id != HEADER_OTHER)
        return headers_find_id(headers, id, from);
    for (uint32_t i = index_behind(headers, from); i < headers->count; i++) {
        struct header *header = &headers->items[i];
        if (header->id == HEADER_OTHER && !header->removed &&
            slice_equal_nocase(header->name, name))
            return header;
    }
    return NULL;
}

struct header *headers_find(const struct headers *headers, struct slice name,
                            const struct header *from)
{
    return find(headers, header_id_of(name), name, from);
}

struct slice headers_get(const struct headers *headers, struct slice name)
{
    const struct header *header = headers_find(headers, name, NULL);
    return header ? header->value : slice_of(NULL, 0);
}

struct slice headers_get_id(const struct headers *headers, enum header_id id)
{
    const struct header *header = headers_find_id(headers, id, NULL);
    return header ? header->value : slice_of(NULL, 0);
}

unsigned headers_remove(struct headers *headers, struct slice name)
{
    unsigned count = 0;
    for (struct header *header = NULL; (header = headers_find(headers, name, header)); count++)
        header->removed = true;
    return count;
}

unsigned headers_remove_id(struct headers *headers, enum header_id id)
{
    unsigned count = 0;
    for (struct header *header = NULL; (header = headers_find_id(headers, id, header)); count++)
        header->removed = true;
    headers->present &= ~(UINT64_C(1) << id);
    return count;
}

int headers_set(struct headers *headers, struct slice name, struct slice value)
{
    enum header_id id = header_id_of(name);
    struct header *first = find(headers, id, name, NULL);
    if (!first)
        return headers_add_id(headers, id, name, value);
    first->name = name;
    first->value = value;
    for (struct header *header = first; (header = find(headers, id, name, header));)
        header->removed = true;
    return 0;
}

struct header *headers_next(const struct headers *headers, uint32_t *at)
{
    while (*at < headers->count) {
        struct header *header = &headers->items[(*at)++];
        if (!header->removed)
            return header;
    }
    return NULL;
}

static bool list_has_token(struct slice list, struct slice token)
{
    while (list.len) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma ? (size_t)(comma - list.ptr) : list.len;
        if (slice_equal_nocase(slice_trim(slice_of(list.ptr, len)), token))
            return true;
        size_t used = comma ? len + 1 : len;
        list = slice_of(list.ptr + used, list.len - used);
    }
    return false;
}

bool headers_has_token(const struct headers *headers, enum header_id id, struct slice token)
{
    for (struct header *header = NULL; (header = headers_find_id(headers, id, header));)
        if (list_has_token(header->value, token))
            return true;
    return false;
}

/* tchar of RFC 9110 section 5.6.2. */
static const bool token_bytes[256] = {
    ['!'] = true,         ['#'] = true,         ['$'] = true,         ['%'] = true, ['&'] = true,
    ['\''] = true,        ['*'] = true,         ['+'] = true,         ['-'] = true, ['.'] = true,
    ['^'] = true,         ['_'] = true,         ['`'] = true,         ['|'] = true, ['~'] = true,
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
};

bool header_name_valid(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!token_bytes[(uint8_t)name.ptr[i]])
            return false;
    return name.len > 0;
}

bool header_value_valid(struct slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t byte = (uint8_t)value.ptr[i];
        if ((byte < ' ' && byte != '\t') || byte == 0x7f)
            return false;
    }
    return true;
}

bool header_may_trail(enum header_id id)
{
    switch (id) {
    case HEADER_TRANSFER_ENCODING:
    case HEADER_CONTENT_LENGTH:
    case HEADER_HOST:
    case HEADER_CONNECTION:
    case HEADER_KEEP_ALIVE:
    case HEADER_PROXY_CONNECTION:
    case HEADER_TRAILER:
    case HEADER_TE:
    case HEADER_UPGRADE:
    case HEADER_EXPECT:
    case HEADER_VIA:
    case HEADER_FORWARDED:
    case HEADER_X_FORWARDED_FOR:
    case HEADER_X_FORWARDED_HOST:
    case HEADER_X_FORWARDED_PROTO:
    case HEADER_AUTHORIZATION:
    case HEADER_PROXY_AUTHENTICATE:
    case HEADER_PROXY_AUTHORIZATION:
    case HEADER_COOKIE:
    case HEADER_SET_COOKIE:
    case HEADER_CONTENT_ENCODING:
    case HEADER_CONTENT_TYPE:
    case HEADER_DATE:
    case HEADER_LOCATION:
    case HEADER_RETRY_AFTER:
        return false;
    default:
        return true;
    }
}

static void remove_named(struct headers *headers, struct slice name, uint64_t keep)
{
    if (name.len && !(keep >> header_id_of(name) & 1))
        headers_remove(headers, name);
}

void headers_remove_listed(struct headers *headers, enum header_id list, uint64_t keep)
{
    keep |= UINT64_C(1) << list;
    for (struct header *header = headers_find_id(headers, list, NULL); header;
         header = headers_find_id(headers, list, header)) {
        struct slice rest = header->value;
        while (rest.len) {
            const char *comma = memchr(rest.ptr, ',', rest.len);
            size_t len = comma ? (size_t)(comma - rest.ptr) : rest.len;
            remove_named(headers, slice_trim(slice_of(rest.ptr, len)), keep);
            size_t used = comma ? len + 1 : len;
            rest = slice_of(rest.ptr + used, rest.len - used);
        }
    }
}
