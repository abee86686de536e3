/* Request heads: the scan finds the same end however the bytes arrive, and what is accepted holds
 * nothing that could be read in another way behind us. */
#include "fuzz.h"

#include "http/h1_parse.h"

#include <assert.h>
#include <string.h>

static const struct h1_limits limits = {
    .line_max_bytes = 4096, .head_max_bytes = 16384, .header_count_max = 64};

static int scan_in_steps(const char *bytes, uint32_t size, uint32_t step)
{
    struct h1_scan scan = {0};
    const char *why = "";
    int result = H1_INCOMPLETE;
    for (uint32_t have = 0; result == H1_INCOMPLETE && have < size;) {
        have = have + step < size ? have + step : size;
        result = h1_head_scan(&scan, bytes, have, &limits, true, &why);
    }
    return result;
}

static void check_target(const struct request *request)
{
    assert(header_name_valid(request->method_name));
    assert(request->path.len > 0);
    for (size_t i = 0; i < request->path.len; i++) {
        unsigned char c = (unsigned char)request->path.ptr[i];
        assert(c > ' ' && c != 0x7f && c != '#' && c != '?');
    }
    for (size_t i = 0; i < request->query.len; i++) {
        unsigned char c = (unsigned char)request->query.ptr[i];
        assert(c > ' ' && c != 0x7f && c != '#');
    }
    assert(
        !memchr(request->authority.ptr ? request->authority.ptr : "", '@', request->authority.len));
}

static void check_fields(const struct request *request, const struct h1_head *head)
{
    uint32_t at = 0;
    unsigned hosts = 0;
    bool coded = false;
    bool sized = false;
    for (struct header *header; (header = headers_next(&request->headers, &at));) {
        assert(header_name_valid(header->name));
        assert(header_value_valid(header->value));
        hosts += header->id == HEADER_HOST;
        coded |= header->id == HEADER_TRANSFER_ENCODING;
        sized |= header->id == HEADER_CONTENT_LENGTH;
    }
    assert(hosts <= 1 && (hosts == 1 || request->version == HTTP_1_0));
    assert(!(coded && sized));
    assert((head->framing == H1_BODY_CHUNKED) == coded);
    assert((head->framing == H1_BODY_LENGTH) == sized);
    assert(head->framing != H1_BODY_UNTIL_CLOSE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    struct arena arena;
    struct h1_head head;
    const char *why = "";
    if (size > 32768)
        return 0;
    int length = scan_in_steps(bytes, (uint32_t)size, (uint32_t)size + 1);
    assert((length > 0) == (scan_in_steps(bytes, (uint32_t)size, 1) > 0));
    assert(length <= 0 || scan_in_steps(bytes, (uint32_t)size, 7) == length);
    if (length <= 0)
        return 0;

    arena_init(&arena);
    struct request request = {.arena = &arena};
    headers_init(&request.headers, &arena);
    struct slice copy = arena_copy(&arena, slice_of(bytes, (size_t)length));
    if (h1_parse_request(&request, copy.ptr, (uint32_t)length, &limits, &head, &why) == 0) {
        check_target(&request);
        check_fields(&request, &head);
    }
    arena_fini(&arena);
    return 0;
}
