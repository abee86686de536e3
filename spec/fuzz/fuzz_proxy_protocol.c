/* Headers of the PROXY protocol: no cut of an accepted one is taken for another, and what was read
 * is written to a header that says the same. */
#include "fuzz.h"

#include "net/proxy_protocol.h"

#include <assert.h>
#include <string.h>

static void expect_same(struct slice a, struct slice b)
{
    assert(!a.ptr == !b.ptr && slice_equal(a, b));
}

static void write_again(const struct proxy_header *header)
{
    static char bytes[PROXY_HEADER_MAX_BYTES];
    struct proxy_header again;
    const char *why = "";
    int len = proxy_header_write_v2(header, bytes, sizeof(bytes));
    assert(len > 0);
    assert(proxy_header_parse(slice_of(bytes, (size_t)len), &again, &why) == len);
    expect_same(header->alpn, again.alpn);
    expect_same(header->authority, again.authority);
    expect_same(header->unique_id, again.unique_id);
    assert(again.tls.used == header->tls.used && again.local == header->local);
    if (header->tls.used)
        expect_same(header->tls.common_name, again.tls.common_name);
    bool both_local = header->source.len && header->source.any.sa_family == AF_UNIX;
    if (!both_local && header->source.len) {
        assert(address_equal(&header->source, &again.source));
        assert(address_equal(&header->destination, &again.destination));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header header;
    struct proxy_header cut;
    const char *why = NULL;
    struct slice bytes = slice_of((const char *)data, size);
    int len = proxy_header_parse(bytes, &header, &why);
    if (len <= 0) {
        assert(len == 0 || why);
        assert(len != 0 || size < PROXY_HEADER_MAX_BYTES);
        return 0;
    }
    assert((size_t)len <= size && len <= PROXY_HEADER_MAX_BYTES);
    size_t step = (size_t)len / 64 + 1;
    for (size_t part = 0; part < (size_t)len; part += step)
        assert(proxy_header_parse(slice_of(bytes.ptr, part), &cut, &why) == 0);
    char line[PROXY_HEADER_V1_MAX_BYTES + 1];
    size_t line_len = proxy_header_write_v1(&header, line);
    assert(line_len <= PROXY_HEADER_V1_MAX_BYTES);
    assert(proxy_header_parse(slice_of(line, line_len), &cut, &why) == (int)line_len);
    write_again(&header);
    return 0;
}
