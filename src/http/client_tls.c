#include "http/client_tls.h"

#include <string.h>

#include "base/log.h"
#include "coro/coro.h"
#include "tls/tls_stream.h"

enum { FAILURES_LOGGED_PER_S = 1 };

static void log_failure(const struct stream *stream, const char *name, const char *why)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char origin[ADDRESS_TEXT_MAX];
    if (!log_limit_pass(&limit, FAILURES_LOGGED_PER_S, &suppressed))
        return;
    address_format(&stream->remote, origin);
    log_warn("TLS handshake with the origin %s at %s failed: %s (%u more were not logged)", name,
             origin, why, suppressed);
}

int client_tls_begin(struct stream *stream, const struct client_tls *tls, int64_t deadline)
{
    char error[TLS_ERROR_MAX_BYTES] = "out of memory";
    stream_start(stream);
    if (!tls->client)
        return 0;
    int result = tls_stream_connect(stream, tls->client, tls->name, tls->memory, error, deadline);
    if (result < 0 && !coro_cancelled())
        log_failure(stream, tls->name, error);
    return result;
}

int client_tls_begin_behind(struct stream *stream, struct slice header,
                            const struct client_tls *tls, int64_t deadline)
{
    struct iovec iov = {(void *)header.ptr, header.len};
    int result = header.len ? stream_send(stream, &iov, 1, deadline) : 0;
    return result < 0 ? result : client_tls_begin(stream, tls, deadline);
}

bool client_tls_agreed(const struct stream *stream, const char *protocol)
{
    struct tls_info info;
    const struct tls_session *session = tls_stream_session(stream);
    if (!session)
        return false;
    tls_describe(session, &info);
    return strcmp(info.alpn, protocol) == 0;
}
