#include "proxy/forward_request.h"

#define BIT(id) (UINT64_C(1) << (id))

bool forward_chunked(const struct request *request)
{
    return request->body.length < 0;
}

bool forward_wants_upgrade(const struct request *request)
{
    struct slice protocol = headers_get_id(&request->headers, HEADER_UPGRADE);
    return request->wants_upgrade && protocol.len &&
           !headers_has_token(&request->headers, HEADER_UPGRADE, SLICE("h2c"));
}

static void write_request_line(struct h1_out *out, const struct request *request)
{
    h1_out_append(out, request->method_name);
    h1_out_append(out, SLICE(" "));
    h1_out_append(out, request->path.len ? request->path : SLICE("/"));
    if (request->query.ptr) {
        h1_out_append(out, SLICE("?"));
        h1_out_append(out, request->query);
    }
    h1_out_append(out, SLICE(" HTTP/1.1\r\n"));
}

static void write_host(struct h1_out *out, const struct request *request,
                       const struct upstream_config *config, const char *peer_text)
{
    bool keep = config->pass_host && request->authority.len;
    struct slice peer = slice_from_cstr(peer_text);
    if (slice_starts_with(peer, SLICE("unix:")))
        peer = SLICE("localhost");
    h1_out_field(out, SLICE("Host"), keep ? request->authority : peer);
}

/* All values of a list field and one more, as one field. */
static void write_appended(struct h1_out *out, const struct headers *headers, enum header_id id,
                           struct slice name, struct slice value)
{
    h1_out_append(out, name);
    h1_out_append(out, SLICE(": "));
    for (struct header *header = headers_find_id(headers, id, NULL); header;
         header = headers_find_id(headers, id, header)) {
        h1_out_append(out, header->value);
        h1_out_append(out, SLICE(", "));
    }
    h1_out_append(out, value);
    h1_out_append(out, SLICE("\r\n"));
}

/* RFC 9110 section 7.6.3. */
static void write_via(struct h1_out *out, const struct request *request)
{
    struct slice via =
        request->version == HTTP_1_0 ? SLICE("1.0 monolake-lua") : SLICE("1.1 monolake-lua");
    write_appended(out, &request->headers, HEADER_VIA, SLICE("Via"), via);
}

static void write_x_forwarded(struct h1_out *out, const struct request *request, struct slice ip)
{
    write_appended(out, &request->headers, HEADER_X_FORWARDED_FOR, SLICE("X-Forwarded-For"), ip);
    h1_out_field(out, SLICE("X-Forwarded-Proto"), request->scheme);
    if (request->authority.len)
        h1_out_field(out, SLICE("X-Forwarded-Host"), request->authority);
}

/* RFC 7239: an IPv6 address stands in brackets and quotes. */
static void write_forwarded(struct h1_out *out, const struct request *request, struct slice ip)
{
    bool v6 = request->remote->any.sa_family == AF_INET6;
    bool local = request->remote->any.sa_family == AF_UNIX;
    struct slice element =
        arena_printf(out->arena, v6 ? "for=\"[%.*s]\";proto=%.*s" : "for=%.*s;proto=%.*s",
                     local ? 7 : (int)ip.len, local ? "unknown" : ip.ptr, (int)request->scheme.len,
                     request->scheme.ptr);
    if (request->authority.len)
        element = arena_printf(out->arena, "%.*s;host=\"%.*s\"", (int)element.len, element.ptr,
                               (int)request->authority.len, request->authority.ptr);
    write_appended(out, &request->headers, HEADER_FORWARDED, SLICE("Forwarded"), element);
}

static void write_client(struct h1_out *out, const struct request *request,
                         const struct upstream_config *config)
{
    if (!request->remote || !(config->x_forwarded || config->forwarded))
        return;
    char ip[ADDRESS_TEXT_MAX];
    struct slice text = slice_of(ip, address_format_host(request->remote, ip));
    if (config->x_forwarded)
        write_x_forwarded(out, request, text);
    if (config->forwarded)
        write_forwarded(out, request, text);
}

static void write_framing(struct h1_out *out, const struct request *request)
{
    if (forward_chunked(request)) {
        h1_out_append(out, SLICE("Transfer-Encoding: chunked\r\n"));
        return;
    }
    bool expects_body = request->method == METHOD_POST || request->method == METHOD_PUT ||
                        request->method == METHOD_PATCH;
    if (request->body.length > 0 || expects_body) {
        h1_out_append(out, SLICE("Content-Length: "));
        h1_out_number(out, (uint64_t)request->body.length);
        h1_out_append(out, SLICE("\r\n"));
    }
}

static void write_connection(struct h1_out *out, const struct request *request)
{
    bool trailers = headers_has_token(&request->headers, HEADER_TE, SLICE("trailers"));
    if (forward_wants_upgrade(request)) {
        h1_out_append(out, SLICE("Connection: Upgrade\r\n"));
        h1_out_field(out, SLICE("Upgrade"), headers_get_id(&request->headers, HEADER_UPGRADE));
    }
    if (trailers)
        h1_out_append(out, SLICE("Connection: TE\r\nTE: trailers\r\n"));
}

void forward_write_head(struct h1_out *out, const struct request *request,
                        const struct upstream_config *config, const char *peer_text)
{
    uint64_t skip = BIT(HEADER_HOST) | BIT(HEADER_VIA);
    if (config->x_forwarded)
        skip |= BIT(HEADER_X_FORWARDED_FOR) | BIT(HEADER_X_FORWARDED_HOST) |
                BIT(HEADER_X_FORWARDED_PROTO);
    if (config->forwarded)
        skip |= BIT(HEADER_FORWARDED);
    if (!request->expects_continue)
        skip |= BIT(HEADER_EXPECT);

    write_request_line(out, request);
    write_host(out, request, config, peer_text);
    /* What Connection names was removed on arrival: here it would remove what layers have set. */
    h1_out_end_to_end_fields(out, &request->headers, false, skip);
    write_via(out, request);
    write_client(out, request, config);
    write_framing(out, request);
    write_connection(out, request);
    h1_out_append(out, SLICE("\r\n"));
}
