#include "proxy/send_proxy.h"

#include <errno.h>
#include <sys/random.h>

#include "http/message.h"
#include "http/proxy_info.h"
#include "proxy/peer.h"
#include "tls/tls.h"

/* --- The client's certificate ----------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte behind a backslash (RFC 4514 section 2.4): two digits, or itself. Returns how many
 * characters it took. */
static size_t unescape(const char *text, char *byte)
{
    int high = hex_digit(text[0]);
    int low = high >= 0 ? hex_digit(text[1]) : -1;
    *byte = low >= 0 ? (char)(high * 16 + low) : text[0];
    return low >= 0 ? 2 : text[0] != '\0';
}

/* The common name in a distinguished name, "CN=alice,O=Example"; ptr NULL if there is none. */
static struct slice common_name(struct arena *arena, const char *subject)
{
    bool at_start = true; /* of an attribute */
    const char *at = subject;
    while (*at && !(at_start && strncmp(at, "CN=", 3) == 0)) {
        at_start = *at == ',' || *at == '+';
        at += at[0] == '\\' && at[1] ? 2 : 1;
    }
    if (!*at)
        return (struct slice){NULL, 0};
    at += 3;
    char *out = arena_alloc(arena, strlen(at) + 1);
    size_t len = 0;
    while (out && *at && *at != ',' && *at != '+') {
        if (*at == '\\')
            at += 1 + unescape(at + 1, &out[len++]);
        else
            out[len++] = *at++;
    }
    return slice_of(out, len);
}

static struct slice peer_name(const struct request *request)
{
    struct tls_peer peer;
    if (tls_describe_peer(request->tls, &peer) != 0)
        return (struct slice){NULL, 0};
    struct slice name = common_name(request->arena, peer.subject);
    tls_peer_free(&peer);
    return name;
}

/* --- What is told ----------------------------------------------------------------------------- */

static struct slice copy(const struct request *request, const char *text)
{
    return text[0] ? arena_copy(request->arena, slice_from_cstr(text)) : (struct slice){NULL, 0};
}

static void tell_of_tls(const struct request *request, const struct tls_info *info,
                        struct proxy_tls *tls)
{
    tls->used = true;
    tls->version = copy(request, info->version);
    tls->cipher = copy(request, info->cipher);
    tls->connected = info->has_peer && !info->resumed;
    tls->in_session = info->has_peer;
    tls->verdict = info->has_peer ? 0 : 1;
    if (info->has_peer)
        tls->common_name = peer_name(request);
}

/* Of the client's own session, or what a proxy in front has said where that has ended it. */
static void tell(const struct request *request, uint32_t what, struct proxy_header *header)
{
    const struct proxy_header *told = request->proxied ? &request->proxied->header : NULL;
    if (request->tls) {
        struct tls_info info;
        tls_describe(request->tls, &info);
        if (what & SEND_PROXY_ALPN)
            header->alpn = copy(request, info.alpn);
        if (what & SEND_PROXY_AUTHORITY)
            header->authority = copy(request, info.name);
        if (what & SEND_PROXY_SSL)
            tell_of_tls(request, &info, &header->tls);
    } else if (told) {
        if (what & SEND_PROXY_ALPN)
            header->alpn = told->alpn;
        if (what & SEND_PROXY_AUTHORITY)
            header->authority = told->authority;
        if (what & SEND_PROXY_SSL)
            header->tls = told->tls;
    }
}

/* What a proxy in front has given, or one of ours: random for each worker, then the request's. */
static struct slice unique_id(const struct request *request)
{
    static uint64_t worker;
    if (request->proxied && request->proxied->header.unique_id.len)
        return request->proxied->header.unique_id;
    if (!worker && getrandom(&worker, sizeof(worker), 0) != sizeof(worker))
        worker = 0;
    return arena_printf(request->arena, "%016llx-%llx", (unsigned long long)worker,
                        (unsigned long long)request->id);
}

/* --- Writing ---------------------------------------------------------------------------------- */

static int write_v2(struct arena *arena, const struct proxy_header *header, struct slice *out)
{
    size_t size = 512; /* enough for nearly all */
    for (;;) {
        char *bytes = arena_alloc(arena, size);
        if (!bytes)
            return -ENOMEM;
        int len = proxy_header_write_v2(header, bytes, size);
        if (len >= 0 || size >= PROXY_HEADER_MAX_BYTES) {
            *out = slice_of(bytes, len < 0 ? 0 : (size_t)len);
            return len < 0 ? len : 0;
        }
        size = PROXY_HEADER_MAX_BYTES;
    }
}

static int greet_v1(const struct request *request, const struct proxy_header *header,
                    struct peer_greeting *greeting)
{
    char *line = arena_alloc(request->arena, PROXY_HEADER_V1_MAX_BYTES + 1);
    if (!line)
        return -ENOMEM;
    greeting->bytes = slice_of(line, proxy_header_write_v1(header, line));
    greeting->identity = greeting->bytes;
    return 0;
}

static int greet_v2(const struct request *request, uint32_t what, struct proxy_header *header,
                    struct peer_greeting *greeting)
{
    tell(request, what, header);
    int result = write_v2(request->arena, header, &greeting->identity);
    greeting->bytes = greeting->identity;
    if (result < 0 || !(what & (SEND_PROXY_UNIQUE_ID | SEND_PROXY_CRC32C)))
        return result;
    if (what & SEND_PROXY_UNIQUE_ID)
        header->unique_id = unique_id(request);
    header->checksum = what & SEND_PROXY_CRC32C;
    return write_v2(request->arena, header, &greeting->bytes);
}

int send_proxy_greet(const struct upstream_config *config, const struct request *request,
                     struct peer_greeting *greeting)
{
    struct proxy_header header = {0};
    *greeting = (struct peer_greeting){0};
    if (!config->send_proxy)
        return 0;
    if (request->remote && request->local) {
        header.source = *request->remote;
        header.destination = *request->local;
    }
    if (config->send_proxy & SEND_PROXY_V1)
        return greet_v1(request, &header, greeting);
    return greet_v2(request, config->send_proxy, &header, greeting);
}
