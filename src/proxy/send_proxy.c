#include "proxy/send_proxy.h"

#include <errno.h>
#include <sys/random.h>

#include "http/message.h"
#include "http/proxy_info.h"
#include "proxy/peer.h"
#include "tls/name.h"
#include "tls/tls.h"

/* --- What is told ----------------------------------------------------------------------------- */

/* The common name in the client's certificate. */
static struct slice peer_name(const struct request *request)
{
    struct tls_peer peer;
    if (tls_describe_peer(request->tls, &peer) != 0)
        return (struct slice){NULL, 0};
    char *name = arena_alloc(request->arena, strlen(peer.subject) + 1);
    ssize_t len = name ? tls_common_name(peer.subject, name) : -1;
    tls_peer_free(&peer);
    return slice_of(len < 0 ? NULL : name, len < 0 ? 0 : (size_t)len);
}

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
