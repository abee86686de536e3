#include "http/message.h"

#include <errno.h>
#include <time.h>

#include "net/stream.h"

struct response *response_create(struct request *request, uint16_t status)
{
    struct response *response = arena_zalloc(request->arena, sizeof(*response));
    if (!response)
        return NULL;
    response->status = status;
    response->request = request;
    response->arena = request->arena;
    headers_init(&response->headers, request->arena);
    headers_init(&response->trailers, request->arena);
    body_init_empty(&response->body);
    return response;
}

struct response *response_create_text(struct request *request, uint16_t status, struct slice text)
{
    struct response *response = response_create(request, status);
    struct slice copy = arena_copy(request->arena, text);
    if (!response || !copy.ptr ||
        headers_add(&response->headers, SLICE("Content-Type"),
                    SLICE("text/plain; charset=utf-8")) != 0)
        return NULL;
    body_init_bytes(&response->body, copy);
    return response;
}

struct response *response_create_error(struct request *request, uint16_t status,
                                       enum response_error error, struct slice text)
{
    struct slice line = arena_printf(request->arena, "%.*s\n", (int)http_reason_phrase(status).len,
                                     http_reason_phrase(status).ptr);
    struct response *response = response_create_text(request, status, line);
    if (!response)
        return NULL;
    response->error = error;
    response->error_text = arena_copy(request->arena, text);
    if (error == RESPONSE_OVERLOADED || error == RESPONSE_NO_PEER)
        headers_add(&response->headers, SLICE("Retry-After"), SLICE("1"));
    return response;
}

static void close_unclaimed(void *arg)
{
    struct response *response = arg;
    if (response->tunnel)
        stream_abort(response->tunnel);
}

int response_set_tunnel(struct response *response, struct stream *tunnel)
{
    if (arena_defer(response->arena, close_unclaimed, response) != 0)
        return -ENOMEM;
    response->tunnel = tunnel;
    return 0;
}

struct slice http_reason_phrase(uint16_t status)
{
    static const struct {
        uint16_t status;
        struct slice phrase;
    } known[] = {
        {100, SLICE_INIT("Continue")},
        {101, SLICE_INIT("Switching Protocols")},
        {102, SLICE_INIT("Processing")},
        {103, SLICE_INIT("Early Hints")},
        {200, SLICE_INIT("OK")},
        {201, SLICE_INIT("Created")},
        {202, SLICE_INIT("Accepted")},
        {203, SLICE_INIT("Non-Authoritative Information")},
        {204, SLICE_INIT("No Content")},
        {205, SLICE_INIT("Reset Content")},
        {206, SLICE_INIT("Partial Content")},
        {207, SLICE_INIT("Multi-Status")},
        {208, SLICE_INIT("Already Reported")},
        {226, SLICE_INIT("IM Used")},
        {300, SLICE_INIT("Multiple Choices")},
        {301, SLICE_INIT("Moved Permanently")},
        {302, SLICE_INIT("Found")},
        {303, SLICE_INIT("See Other")},
        {304, SLICE_INIT("Not Modified")},
        {305, SLICE_INIT("Use Proxy")},
        {307, SLICE_INIT("Temporary Redirect")},
        {308, SLICE_INIT("Permanent Redirect")},
        {400, SLICE_INIT("Bad Request")},
        {401, SLICE_INIT("Unauthorized")},
        {402, SLICE_INIT("Payment Required")},
        {403, SLICE_INIT("Forbidden")},
        {404, SLICE_INIT("Not Found")},
        {405, SLICE_INIT("Method Not Allowed")},
        {406, SLICE_INIT("Not Acceptable")},
        {407, SLICE_INIT("Proxy Authentication Required")},
        {408, SLICE_INIT("Request Timeout")},
        {409, SLICE_INIT("Conflict")},
        {410, SLICE_INIT("Gone")},
        {411, SLICE_INIT("Length Required")},
        {412, SLICE_INIT("Precondition Failed")},
        {413, SLICE_INIT("Content Too Large")},
        {414, SLICE_INIT("URI Too Long")},
        {415, SLICE_INIT("Unsupported Media Type")},
        {416, SLICE_INIT("Range Not Satisfiable")},
        {417, SLICE_INIT("Expectation Failed")},
        {421, SLICE_INIT("Misdirected Request")},
        {422, SLICE_INIT("Unprocessable Content")},
        {423, SLICE_INIT("Locked")},
        {424, SLICE_INIT("Failed Dependency")},
        {425, SLICE_INIT("Too Early")},
        {426, SLICE_INIT("Upgrade Required")},
        {428, SLICE_INIT("Precondition Required")},
        {429, SLICE_INIT("Too Many Requests")},
        {431, SLICE_INIT("Request Header Fields Too Large")},
        {451, SLICE_INIT("Unavailable For Legal Reasons")},
        {500, SLICE_INIT("Internal Server Error")},
        {501, SLICE_INIT("Not Implemented")},
        {502, SLICE_INIT("Bad Gateway")},
        {503, SLICE_INIT("Service Unavailable")},
        {504, SLICE_INIT("Gateway Timeout")},
        {505, SLICE_INIT("HTTP Version Not Supported")},
        {506, SLICE_INIT("Variant Also Negotiates")},
        {507, SLICE_INIT("Insufficient Storage")},
        {508, SLICE_INIT("Loop Detected")},
        {511, SLICE_INIT("Network Authentication Required")},
    };
    unsigned low = 0;
    unsigned high = sizeof(known) / sizeof(known[0]);
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (known[middle].status == status)
            return known[middle].phrase;
        if (known[middle].status < status)
            low = middle + 1;
        else
            high = middle;
    }
    return SLICE("");
}

bool http_response_bodyless(enum http_method method, uint16_t status)
{
    return method == METHOD_HEAD || status < 200 || status == 204 || status == 304 ||
           (method == METHOD_CONNECT && status < 300);
}

bool http_method_idempotent(enum http_method method)
{
    switch (method) {
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_PUT:
    case METHOD_DELETE:
    case METHOD_OPTIONS:
    case METHOD_TRACE:
        return true;
    default:
        return false;
    }
}

enum http_method http_method_of(struct slice name)
{
    static const struct slice known[] = {
        [METHOD_GET] = SLICE_INIT("GET"),         [METHOD_HEAD] = SLICE_INIT("HEAD"),
        [METHOD_POST] = SLICE_INIT("POST"),       [METHOD_PUT] = SLICE_INIT("PUT"),
        [METHOD_DELETE] = SLICE_INIT("DELETE"),   [METHOD_CONNECT] = SLICE_INIT("CONNECT"),
        [METHOD_OPTIONS] = SLICE_INIT("OPTIONS"), [METHOD_TRACE] = SLICE_INIT("TRACE"),
        [METHOD_PATCH] = SLICE_INIT("PATCH"),
    };
    for (unsigned i = 0; i < METHOD_OTHER; i++)
        if (slice_equal(name, known[i]))
            return (enum http_method)i;
    return METHOD_OTHER;
}

struct slice http_date_now(int64_t now_ms)
{
    static char text[32];
    static size_t len;
    static int64_t valid_until_ms;
    if (!len || now_ms >= valid_until_ms) {
        struct timespec now;
        struct tm utc;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        len = strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &utc);
        valid_until_ms = now_ms + 1000 - now.tv_nsec / 1000000;
    }
    return slice_of(text, len);
}
