/* Response heads: the scan finds the same end however the bytes arrive, and what is accepted is
 * clean and framed in one way only, whatever the request was. */
#include "fuzz.h"
#include "head.h"

static void check_framing(const struct response *response, enum http_method method,
                          const struct h1_head *head)
{
    unsigned codings = count_fields(&response->headers, HEADER_TRANSFER_ENCODING);
    unsigned lengths = count_fields(&response->headers, HEADER_CONTENT_LENGTH);
    assert(response->status >= 100 && response->status <= 599);
    assert(codings + lengths <= 1);
    if (http_response_bodyless(method, response->status)) {
        assert(head->framing == H1_BODY_NONE);
        return;
    }
    assert((head->framing == H1_BODY_CHUNKED) == (codings == 1));
    assert((head->framing == H1_BODY_LENGTH) == (lengths == 1));
    assert(head->framing != H1_BODY_NONE);
    assert(head->framing != H1_BODY_UNTIL_CLOSE || !head->keep_alive);
    assert(head->content_length <= INT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum http_method methods[] = {METHOD_GET, METHOD_HEAD, METHOD_CONNECT};
    if (size > 32768)
        return 0;
    scan_every_way((const char *)data, (uint32_t)size, &tight_limits, false);
    int length = scan_every_way((const char *)data, (uint32_t)size, &wide_limits, false);
    for (unsigned i = 0; length > 0 && i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct arena arena;
        struct h1_head head;
        const char *why = "";
        arena_init(&arena);
        struct response response = {.arena = &arena};
        headers_init(&response.headers, &arena);
        struct slice copy = arena_copy(&arena, slice_of((const char *)data, (size_t)length));
        if (h1_parse_response(&response, methods[i], copy.ptr, (uint32_t)length, &wide_limits,
                              &head, &why) == 0) {
            check_fields_are_lines(&response.headers, copy, SLICE(""));
            check_framing(&response, methods[i], &head);
        }
        arena_fini(&arena);
    }
    return 0;
}
