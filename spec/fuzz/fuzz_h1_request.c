/* Request heads: the scan finds the same end however the bytes arrive, and what is accepted holds
 * nothing that could be read in another way behind us. */
#include "fuzz.h"
#include "head.h"

#include "http/h1_target.h"

static void check_bytes(struct slice text, const char *forbidden)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        assert(c > ' ' && c < 0x7f && !strchr(forbidden, c));
    }
}

static void check_target(const struct request *request)
{
    assert(header_name_valid(request->method_name));
    assert(request->path.len > 0 || request->method == METHOD_CONNECT);
    assert(request->path.len == 0 || request->path.ptr[0] == '/' ||
           (request->method == METHOD_OPTIONS && slice_equal(request->path, SLICE("*"))));
    check_bytes(request->path, "#?\"<>\\");
    check_bytes(request->query, "#\"<>\\");
    check_bytes(request->authority, "#?/@\"<>\\");
    assert(h1_authority_valid(request->authority) ||
           (request->version == HTTP_1_0 && request->authority.len == 0));
}

static bool target_names_host(struct slice head)
{
    const char *target = memchr(head.ptr, ' ', head.len);
    return target && target[1] != '/' && target[1] != '*';
}

static void check_framing(const struct request *request, const struct h1_head *head)
{
    unsigned hosts = count_fields(&request->headers, HEADER_HOST);
    unsigned codings = count_fields(&request->headers, HEADER_TRANSFER_ENCODING);
    unsigned lengths = count_fields(&request->headers, HEADER_CONTENT_LENGTH);
    assert(request->version == HTTP_1_1 || request->version == HTTP_1_0);
    assert(hosts <= 1 && (hosts == 1 || request->version == HTTP_1_0));
    assert(codings + lengths <= 1);
    assert(codings == 0 || request->version == HTTP_1_1);
    assert((head->framing == H1_BODY_CHUNKED) == (codings == 1));
    assert((head->framing == H1_BODY_LENGTH) == (lengths == 1));
    assert(head->framing != H1_BODY_UNTIL_CLOSE);
    assert(head->content_length <= INT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct h1_head head;
    const char *why = "";
    if (size > 32768)
        return 0;
    scan_every_way((const char *)data, (uint32_t)size, &tight_limits, true);
    int length = scan_every_way((const char *)data, (uint32_t)size, &wide_limits, true);
    if (length <= 0)
        return 0;

    arena_init(&arena);
    struct request request = {.arena = &arena};
    headers_init(&request.headers, &arena);
    struct slice copy = arena_copy(&arena, slice_of((const char *)data, (size_t)length));
    if (h1_parse_request(&request, copy.ptr, (uint32_t)length, &wide_limits, &head, &why) == 0) {
        check_target(&request);
        check_fields_are_lines(&request.headers, copy,
                               target_names_host(copy) ? request.authority : SLICE(""));
        check_framing(&request, &head);
    }
    arena_fini(&arena);
    return 0;
}
