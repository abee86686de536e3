#include "proxy/forward_request.h"

#include <errno.h>
#include <string.h>

#include "thrift/exchange.h"

#define BIT(id) (UINT64_C(1) << (id))

bool forward_wants_upgrade(const struct request *request)
{
    struct slice protocol = headers_get_id(&request->headers, HEADER_UPGRADE);
    return request->wants_upgrade && protocol.len &&
           !headers_has_token(&request->headers, HEADER_UPGRADE, SLICE("h2c"));
}

static struct slice authority_of(const struct request *request,
                                 const struct upstream_config *config, const char *peer_text)
{
    if (config->pass_host && request->authority.len)
        return request->authority;
    struct slice peer = slice_from_cstr(peer_text);
    return slice_starts_with(peer, SLICE("unix:")) ? SLICE("localhost") : peer;
}

/* A field in the place of the request's own of that name. */
static int replace(struct client_head *head, enum header_id id, struct slice name,
                   struct slice value)
{
    if (!value.ptr)
        return -ENOMEM;
    head->skip |= BIT(id);
    head->extra[head->extra_count++] = (struct header){.name = name, .value = value, .id = id};
    return 0;
}

/* All values of the request's field, then this one, as one list. */
static struct slice list_with(const struct headers *headers, enum header_id id, struct slice last)
{
    size_t len = last.len;
    for (struct header *header = headers_find_id(headers, id, NULL); header;
         header = headers_find_id(headers, id, header))
        len += header->value.len + 2;
    if (len == last.len)
        return last;
    char *bytes = arena_alloc(headers->arena, len);
    if (!bytes)
        return (struct slice){NULL, 0};
    char *at = bytes;
    for (struct header *header = headers_find_id(headers, id, NULL); header;
         header = headers_find_id(headers, id, header)) {
        if (header->value.len)
            memcpy(at, header->value.ptr, header->value.len);
        at += header->value.len;
        *at++ = ',';
        *at++ = ' ';
    }
    memcpy(at, last.ptr, last.len);
    return slice_of(bytes, len);
}

/* As replace, behind the values that the request's field has. */
static int append(struct client_head *head, enum header_id id, struct slice name,
                  struct slice value)
{
    if (!value.ptr)
        return -ENOMEM;
    return replace(head, id, name, list_with(&head->request->headers, id, value));
}

/* RFC 9110 section 7.6.3. */
static int add_via(struct client_head *head)
{
    struct slice via = SLICE("1.1 monolake-lua");
    if (head->request->version == HTTP_1_0)
        via = SLICE("1.0 monolake-lua");
    if (head->request->version == HTTP_2)
        via = SLICE("2.0 monolake-lua");
    return append(head, HEADER_VIA, SLICE("Via"), via);
}

static int add_x_forwarded(struct client_head *head, struct slice ip)
{
    const struct request *request = head->request;
    int result = append(head, HEADER_X_FORWARDED_FOR, SLICE("X-Forwarded-For"), ip);
    if (result == 0)
        result =
            replace(head, HEADER_X_FORWARDED_PROTO, SLICE("X-Forwarded-Proto"), request->scheme);
    if (result == 0 && request->authority.len)
        result =
            replace(head, HEADER_X_FORWARDED_HOST, SLICE("X-Forwarded-Host"), request->authority);
    return result;
}

/* RFC 7239: an IPv6 address stands in brackets and quotes. */
static int add_forwarded(struct client_head *head, struct slice ip)
{
    const struct request *request = head->request;
    bool v6 = request->remote->any.sa_family == AF_INET6;
    bool local = request->remote->any.sa_family == AF_UNIX;
    struct slice element =
        arena_printf(request->arena, v6 ? "for=\"[%.*s]\";proto=%.*s" : "for=%.*s;proto=%.*s",
                     local ? 7 : (int)ip.len, local ? "unknown" : ip.ptr, (int)request->scheme.len,
                     request->scheme.ptr);
    if (element.ptr && request->authority.len)
        element = arena_printf(request->arena, "%.*s;host=\"%.*s\"", (int)element.len, element.ptr,
                               (int)request->authority.len, request->authority.ptr);
    return append(head, HEADER_FORWARDED, SLICE("Forwarded"), element);
}

static int add_client(struct client_head *head, const struct upstream_config *config)
{
    const struct request *request = head->request;
    if (!request->remote || !(config->x_forwarded || config->forwarded))
        return 0;
    char ip[ADDRESS_TEXT_MAX];
    struct slice text =
        arena_copy(request->arena, slice_of(ip, address_format_host(request->remote, ip)));
    if (!text.ptr)
        return -ENOMEM;
    int result = config->x_forwarded ? add_x_forwarded(head, text) : 0;
    return result == 0 && config->forwarded ? add_forwarded(head, text) : result;
}

/* Fields that only we may set, and which are not sent on even if there is nothing to be set. */
static uint64_t withheld(const struct request *request, const struct upstream_config *config)
{
    uint64_t skip = 0;
    if (config->x_forwarded)
        skip |= BIT(HEADER_X_FORWARDED_FOR) | BIT(HEADER_X_FORWARDED_HOST) |
                BIT(HEADER_X_FORWARDED_PROTO);
    if (config->forwarded)
        skip |= BIT(HEADER_FORWARDED);
    if (!request->expects_continue)
        skip |= BIT(HEADER_EXPECT);
    return skip;
}

/* "get*": what begins so. */
static bool name_matches(struct slice name, const char *pattern)
{
    struct slice text = slice_from_cstr(pattern);
    if (!text.len || text.ptr[text.len - 1] != '*')
        return slice_equal(name, text);
    return slice_starts_with(name, slice_of(text.ptr, text.len - 1));
}

bool forward_idempotent(const struct request *request, const struct upstream_config *config)
{
    const struct thrift_message *call = request->thrift;
    if (!call)
        return http_method_idempotent(request->method);
    if (call->idempotent || call->type == THRIFT_ONEWAY)
        return true;
    for (unsigned i = 0; i < config->idempotent_count; i++)
        if (name_matches(call->method, config->idempotent[i]) ||
            name_matches(thrift_own_name(call->method), config->idempotent[i]))
            return true;
    return false;
}

int forward_make_head(struct client_head *head, const struct request *request,
                      const struct upstream_config *config, const char *peer_text)
{
    head->request = request;
    head->authority = authority_of(request, config, peer_text);
    head->skip = withheld(request, config);
    head->extra_count = 0;
    head->upgrade = forward_wants_upgrade(request);
    int result = add_via(head);
    return result == 0 ? add_client(head, config) : result;
}
