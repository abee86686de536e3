/* The functions of monolake.h that act on messages, for native layers. */
#include "monolake.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "http/exchange.h"
#include "http/message.h"
#include "io/wait.h"

/* Layers get C strings; slices in the arena may lack the NUL, so text is copied once. */
static const char *text_of(struct request *request, struct slice slice)
{
    return arena_copy(request->arena, slice).ptr;
}

ml_response *ml_respond(ml_request *request, int status, const char *text)
{
    if (status < 200 || status > 599)
        return NULL;
    return response_create_text(request, (uint16_t)status, slice_from_cstr(text));
}

const char *ml_request_method(ml_request *request)
{
    return text_of(request, request->method_name);
}

const char *ml_request_path(ml_request *request)
{
    return text_of(request, request->path);
}

const char *ml_request_query(ml_request *request)
{
    return text_of(request, request->query);
}

const char *ml_request_host(ml_request *request)
{
    return text_of(request, request->authority);
}

const char *ml_request_ip(ml_request *request)
{
    char ip[ADDRESS_TEXT_MAX];
    size_t len = request->remote ? address_format_host(request->remote, ip) : 0;
    return text_of(request, slice_of(ip, len));
}

static bool path_valid(struct slice path)
{
    if (!path.len || path.ptr[0] != '/')
        return false;
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        if (c <= ' ' || c == 0x7f || c == '?' || c == '#')
            return false;
    }
    return true;
}

int ml_request_set_path(ml_request *request, const char *path)
{
    struct slice text = slice_from_cstr(path);
    if (!path_valid(text))
        return -EINVAL;
    struct slice copy = arena_copy(request->arena, text);
    if (!copy.ptr)
        return -ENOMEM;
    request->path = copy;
    return 0;
}

int ml_response_status(const ml_response *response)
{
    return response->status;
}

int ml_response_set_status(ml_response *response, int status)
{
    if (status < 200 || status > 599)
        return -EINVAL;
    response->status = (uint16_t)status;
    return 0;
}

ml_headers *ml_request_headers(ml_request *request)
{
    return &request->headers;
}

ml_headers *ml_response_headers(ml_response *response)
{
    return &response->headers;
}

const char *ml_headers_get(ml_headers *headers, const char *name)
{
    struct slice value = headers_get(headers, slice_from_cstr(name));
    return value.ptr ? arena_copy(headers->arena, value).ptr : NULL;
}

typedef int store_fn(struct headers *headers, struct slice name, struct slice value);

static int store_copy(ml_headers *headers, struct slice name, struct slice value, store_fn *store)
{
    if (!header_name_valid(name) || !header_value_valid(value))
        return -EINVAL;
    struct slice name_copy = arena_copy(headers->arena, name);
    struct slice value_copy = arena_copy(headers->arena, value);
    if (!name_copy.ptr || !value_copy.ptr)
        return -ENOMEM;
    return store(headers, name_copy, value_copy);
}

int ml_headers_set(ml_headers *headers, const char *name, const char *value)
{
    return store_copy(headers, slice_from_cstr(name), slice_from_cstr(value), headers_set);
}

int ml_headers_add(ml_headers *headers, const char *name, const char *value)
{
    return store_copy(headers, slice_from_cstr(name), slice_from_cstr(value), headers_add);
}

int ml_headers_remove(ml_headers *headers, const char *name)
{
    headers_remove(headers, slice_from_cstr(name));
    return 0;
}

int ml_headers_setf(ml_headers *headers, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct slice value = arena_vprintf(headers->arena, format, args);
    va_end(args);
    if (!value.ptr)
        return -ENOMEM;
    return store_copy(headers, slice_from_cstr(name), value, headers_set);
}

uint64_t ml_now_us(void)
{
    return (uint64_t)clock_now_us();
}

int ml_sleep_ms(ml_request *request, uint32_t ms)
{
    struct io *io = request->exchange->io;
    return wait_sleep(io, io_now_ms(io) + ms);
}

void *ml_alloc(ml_request *request, size_t size)
{
    return arena_alloc(request->arena, size);
}

void ml_log(int level, const char *format, ...)
{
    if (level < ML_LOG_ERROR || level > ML_LOG_DEBUG || (int)log_threshold < level)
        return;
    char text[LOG_LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_write((enum log_level)level, "%s", text);
}
