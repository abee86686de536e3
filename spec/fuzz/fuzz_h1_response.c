/* Response heads: what is accepted is clean and framed in one way only. */
#include "fuzz.h"

#include "http/h1_parse.h"

#include <assert.h>

static const struct h1_limits limits = {
    .line_max_bytes = 4096, .head_max_bytes = 16384, .header_count_max = 64};

static void check(const struct response *response, const struct h1_head *head)
{
    uint32_t at = 0;
    assert(response->status >= 100 && response->status <= 999);
    for (struct header *header; (header = headers_next(&response->headers, &at));) {
        assert(header_name_valid(header->name));
        assert(header_value_valid(header->value));
    }
    bool coded = headers_find_id(&response->headers, HEADER_TRANSFER_ENCODING, NULL);
    bool sized = headers_find_id(&response->headers, HEADER_CONTENT_LENGTH, NULL);
    assert(!(coded && sized));
    assert(head->framing != H1_BODY_CHUNKED || coded);
    assert(head->framing != H1_BODY_LENGTH || sized);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct h1_scan scan = {0};
    struct h1_head head;
    struct arena arena;
    const char *why = "";
    if (size < 1 || size > 32768)
        return 0;
    enum http_method method = data[0] & 1 ? METHOD_HEAD : METHOD_GET; /* 'H' is even */
    int length = h1_head_scan(&scan, (const char *)data, (uint32_t)size, &limits, false, &why);
    if (length <= 0)
        return 0;
    arena_init(&arena);
    struct response response = {.arena = &arena};
    headers_init(&response.headers, &arena);
    struct slice copy = arena_copy(&arena, slice_of((const char *)data, (size_t)length));
    if (h1_parse_response(&response, method, copy.ptr, (uint32_t)length, &limits, &head, &why) == 0)
        check(&response, &head);
    arena_fini(&arena);
    return 0;
}
