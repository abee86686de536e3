/* Forwarded heads: whatever request is accepted, the head that the origin gets is accepted by the
 * same parser, ends where we think, asks for the same and is framed as the body is. The first byte
 * picks what is configured. */
#include "fuzz.h"
#include "head.h"

#include "http/h1_client.h"
#include "proxy/forward_request.h"

static const struct h1_limits no_limits = {
    .line_max_bytes = 1 << 24, .head_max_bytes = 1 << 24, .header_count_max = 1 << 16};

/* The body as the server would offer it; nothing reads it. */
static void set_body(struct request *request, const struct h1_head *head)
{
    body_init_empty(&request->body);
    if (head->framing == H1_BODY_CHUNKED)
        request->body.length = -1;
    if (head->framing == H1_BODY_LENGTH)
        request->body.length = (int64_t)head->content_length;
}

static void check_framing(const struct request *request, const struct h1_head *head)
{
    if (request->body.length < 0)
        assert(head->framing == H1_BODY_CHUNKED);
    else if (request->body.length > 0)
        assert(head->framing == H1_BODY_LENGTH &&
               head->content_length == (uint64_t)request->body.length);
    else
        assert(head->framing == H1_BODY_NONE ||
               (head->framing == H1_BODY_LENGTH && head->content_length == 0));
}

/* No field that concerned the client's connection has gone further. */
static void check_hop_by_hop(const struct request *request, const struct request *forwarded)
{
    uint32_t at = 0;
    assert(!headers_find_id(&forwarded->headers, HEADER_KEEP_ALIVE, NULL));
    assert(!headers_find_id(&forwarded->headers, HEADER_PROXY_CONNECTION, NULL));
    assert(!headers_has_token(&forwarded->headers, HEADER_CONNECTION, SLICE("close")));
    for (struct header *header; (header = headers_next(&forwarded->headers, &at));)
        assert(header->id != HEADER_OTHER ||
               !headers_has_token(&request->headers, HEADER_CONNECTION, header->name));
}

static void check_forwarded(const struct request *request, const struct h1_out *out,
                            struct arena *arena)
{
    struct request forwarded = {.arena = arena};
    struct h1_head head;
    const char *why = "";
    headers_init(&forwarded.headers, arena);
    assert(!out->failed);
    assert(scan_in_steps(out->data, (uint32_t)out->len, (uint32_t)out->len, &no_limits, true) ==
           (int)out->len);
    assert(h1_parse_request(&forwarded, out->data, (uint32_t)out->len, &no_limits, &head, &why) ==
           0);
    assert(slice_equal(forwarded.method_name, request->method_name));
    assert(slice_equal(forwarded.path, request->path));
    assert(slice_equal(forwarded.query, request->query));
    assert(forwarded.version == HTTP_1_1 && head.keep_alive);
    check_fields_are_lines(&forwarded.headers, slice_of(out->data, out->len), SLICE(""));
    check_framing(request, &head);
    check_hop_by_hop(request, &forwarded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct slice remotes[] = {SLICE_INIT("192.0.2.1:80"),
                                           SLICE_INIT("[2001:db8::1]:80"), SLICE_INIT("unix:/x")};
    struct arena arena;
    struct h1_head head;
    struct address remote;
    const char *why = "";
    if (size < 2 || size > 16384)
        return 0;
    struct upstream_config config = {
        .pass_host = data[0] & 1, .x_forwarded = data[0] & 2, .forwarded = data[0] & 4};
    assert(address_parse(remotes[(data[0] >> 3) % 3], &remote, &why) == 0);
    arena_init(&arena);
    struct request request = {.arena = &arena, .scheme = SLICE("http"), .remote = &remote};
    headers_init(&request.headers, &arena);
    struct slice bytes = arena_copy(&arena, slice_of((const char *)data + 1, size - 1));
    int length =
        scan_in_steps(bytes.ptr, (uint32_t)bytes.len, (uint32_t)bytes.len, &wide_limits, true);
    if (length > 0 &&
        h1_parse_request(&request, bytes.ptr, (uint32_t)length, &wide_limits, &head, &why) == 0 &&
        request.method != METHOD_CONNECT) { /* refused before */
        struct h1_out out = {.arena = &arena};
        h1_remove_listed(&request.headers); /* as the server does on arrival */
        set_body(&request, &head);
        struct client_head forwarded;
        assert(forward_make_head(&forwarded, &request, &config, "origin.example:80") == 0);
        h1_client_write_head(&out, &forwarded);
        check_forwarded(&request, &out, &arena);
    }
    arena_fini(&arena);
    return 0;
}
