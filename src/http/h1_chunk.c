#include "http/h1_chunk.h"

#include <errno.h>

enum state {
    SIZE,      /* hex digits */
    EXTENSION, /* from ";" to CR */
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER, /* lines up to an empty one, gathered */
    END,
};

/* Extensions may not outweigh the data by much: a peer that sends one byte per chunk, each with
 * extensions, would make us work for nothing. */
enum { EXTENSIONS_EXCESS_MAX = 65536, DIGITS_MAX = 16 };

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int on_size(struct h1_chunk_decoder *decoder, char c)
{
    int digit = hex_value(c);
    if (digit >= 0) {
        if (decoder->digits == DIGITS_MAX || decoder->left >> 59)
            return -EPROTO; /* over 2^63 - 1 */
        decoder->left = decoder->left << 4 | (unsigned)digit;
        decoder->digits++;
        return 0;
    }
    if (!decoder->digits)
        return -EPROTO;
    if (c == '\r') {
        decoder->state = SIZE_LF;
    } else if (c == ';') {
        decoder->state = EXTENSION;
        decoder->extension = 0;
    } else {
        return -EPROTO; /* white space included: RFC 9112 section 7.1.1 calls it BWS, yet it is what
                           request smuggling is made of */
    }
    return 0;
}

static int on_extension(struct h1_chunk_decoder *decoder, char c)
{
    if (c == '\r') {
        decoder->state = SIZE_LF;
        return 0;
    }
    uint8_t byte = (uint8_t)c;
    if ((byte < ' ' && c != '\t') || byte == 0x7f)
        return -EPROTO;
    if (++decoder->extension > H1_CHUNK_EXTENSION_MAX_BYTES ||
        ++decoder->extensions_excess > EXTENSIONS_EXCESS_MAX)
        return -EMSGSIZE;
    return 0;
}

static void begin_size(struct h1_chunk_decoder *decoder)
{
    decoder->state = SIZE;
    decoder->left = 0;
    decoder->digits = 0;
}

static int gather(struct h1_chunk_decoder *decoder, char c)
{
    if (decoder->trailer_len == H1_TRAILER_MAX_BYTES)
        return -EMSGSIZE;
    if (decoder->trailer_len == decoder->trailer_capacity) {
        uint32_t capacity = decoder->trailer_capacity ? decoder->trailer_capacity * 2 : 256;
        char *grown = arena_alloc(decoder->arena, capacity);
        if (!grown)
            return -ENOMEM;
        if (decoder->trailer_len)
            memcpy(grown, decoder->trailer, decoder->trailer_len);
        decoder->trailer = grown;
        decoder->trailer_capacity = capacity;
    }
    decoder->trailer[decoder->trailer_len++] = c;
    return 0;
}

static int add_trailer(struct h1_chunk_decoder *decoder, struct slice line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (!colon)
        return -EPROTO;
    struct slice name = slice_of(line.ptr, (size_t)(colon - line.ptr));
    struct slice value = slice_trim(slice_of(colon + 1, line.len - name.len - 1));
    if (!header_name_valid(name) || !header_value_valid(value))
        return -EPROTO;
    enum header_id id = header_id_of(name);
    if (!decoder->trailers || !header_may_trail(id))
        return 0;
    return headers_add_id(decoder->trailers, id, name, value);
}

/* All lines are there, the empty one included. */
static int parse_trailers(struct h1_chunk_decoder *decoder)
{
    const char *at = decoder->trailer;
    const char *end = at + decoder->trailer_len - 2;
    while (at < end) {
        const char *stop = memchr(at, '\r', (size_t)(end - at));
        int result = add_trailer(decoder, slice_of(at, (size_t)(stop - at)));
        if (result < 0)
            return result;
        at = stop + 2;
    }
    return 0;
}

/* Returns 1 at the end of the section. */
static int on_trailer(struct h1_chunk_decoder *decoder, char c)
{
    uint32_t len = decoder->trailer_len;
    char before = len ? decoder->trailer[len - 1] : '\n';
    if ((c == '\n') != (len && before == '\r'))
        return -EPROTO; /* a bare LF, or a CR without one */
    int result = gather(decoder, c);
    if (result < 0 || c != '\n')
        return result;
    bool empty = len == 1 || decoder->trailer[len - 2] == '\n';
    if (!empty)
        return 0;
    result = parse_trailers(decoder);
    decoder->state = END;
    return result < 0 ? result : 1;
}

/* One byte of framing. Returns 0, 1 at the end of the body, or a negative errno. */
static int on_framing(struct h1_chunk_decoder *decoder, char c)
{
    switch (decoder->state) {
    case SIZE:
        return on_size(decoder, c);
    case EXTENSION:
        return on_extension(decoder, c);
    case SIZE_LF:
        decoder->state = decoder->left ? DATA : TRAILER;
        return c == '\n' ? 0 : -EPROTO;
    case DATA_CR:
        decoder->state = DATA_LF;
        return c == '\r' ? 0 : -EPROTO;
    case DATA_LF:
        begin_size(decoder);
        return c == '\n' ? 0 : -EPROTO;
    case TRAILER:
        return on_trailer(decoder, c);
    default:
        return -EPROTO;
    }
}

static struct slice take_data(struct h1_chunk_decoder *decoder, struct slice *input)
{
    size_t len = input->len < decoder->left ? input->len : (size_t)decoder->left;
    struct slice data = slice_of(input->ptr, len);
    input->ptr += len;
    input->len -= len;
    decoder->left -= len;
    decoder->extensions_excess -=
        len < decoder->extensions_excess ? len : decoder->extensions_excess;
    if (!decoder->left)
        decoder->state = DATA_CR;
    return data;
}

int h1_chunk_decode(struct h1_chunk_decoder *decoder, struct slice *input, struct slice *data)
{
    if (decoder->state == END)
        return 0;
    while (input->len) {
        if (decoder->state == DATA) {
            *data = take_data(decoder, input);
            return 1;
        }
        char c = *input->ptr++;
        input->len--;
        int result = on_framing(decoder, c);
        if (result)
            return result < 0 ? result : 0;
    }
    return -EAGAIN;
}

unsigned h1_chunk_header(char out[H1_CHUNK_HEADER_MAX_BYTES], uint64_t size)
{
    static const char digits[] = "0123456789abcdef";
    unsigned shift = 60;
    unsigned len = 0;
    while (shift && !(size >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        out[len++] = digits[size >> shift & 15];
        if (!shift)
            break;
    }
    out[len++] = '\r';
    out[len++] = '\n';
    return len;
}
