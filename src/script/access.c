#include "script/access.h"

#include "base/clock.h"
#include "http/exchange.h"
#include "proxy/log_line.h"
#include "script/body.h"
#include "thrift/exchange.h"

#include <errno.h>
#include <time.h>

/* The request if it has not ended: exchanges live in memory that is never given back. */
static struct request *live(intptr_t address, uint32_t generation)
{
    struct request *request = (struct request *)address;
    return request->generation == generation ? request : NULL;
}

static int found(struct slice text, struct script_text *out)
{
    out->ptr = text.ptr;
    out->len = text.len;
    return text.ptr ? ACCESS_FOUND : ACCESS_NONE;
}

static int host_of(const struct address *address, struct script_text *out)
{
    static char text[ADDRESS_TEXT_MAX];
    if (!address || !address->len)
        return ACCESS_NONE;
    return found(slice_of(text, address_format_host(address, text)), out);
}

int script_request_text(intptr_t address, uint32_t generation, int field, struct script_text *out)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    switch (field) {
    case FIELD_METHOD:
        return found(request->method_name, out);
    case FIELD_PATH:
        return found(request->path, out);
    case FIELD_QUERY:
        return found(request->query, out);
    case FIELD_SCHEME:
        return found(request->scheme, out);
    case FIELD_HOST:
        return found(request->authority, out);
    case FIELD_IP:
        return host_of(request->remote, out);
    case FIELD_LOCAL_IP:
        return host_of(request->local, out);
    default:
        return ACCESS_INVALID;
    }
}

double script_request_number(intptr_t address, uint32_t generation, int field)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    switch (field) {
    case FIELD_PORT:
        return request->remote ? address_port(request->remote) : 0;
    case FIELD_LOCAL_PORT:
        return request->local ? address_port(request->local) : 0;
    case FIELD_ID:
        return (double)request->id;
    case FIELD_VERSION:
        return request->version;
    default:
        return ACCESS_INVALID;
    }
}

/* May these bytes stand in a target? No controls, spaces or fragments (RFC 9112 section 3.2). */
static bool target_valid(struct slice text, bool query_allowed)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c <= ' ' || c == 0x7f || c == '#' || (c == '?' && !query_allowed))
            return false;
    }
    return true;
}

static int set_method(struct request *request, struct slice text)
{
    if (!header_name_valid(text))
        return ACCESS_INVALID;
    struct slice copy = arena_copy(request->arena, text);
    if (!copy.ptr)
        return ACCESS_MEMORY;
    request->method_name = copy;
    request->method = http_method_of(copy);
    return ACCESS_FOUND;
}

static int set_path(struct request *request, struct slice text)
{
    if (!text.len || text.ptr[0] != '/' || !target_valid(text, false))
        return ACCESS_INVALID;
    struct slice copy = arena_copy(request->arena, text);
    if (!copy.ptr)
        return ACCESS_MEMORY;
    request->path = copy;
    return ACCESS_FOUND;
}

static int set_query(struct request *request, struct slice text)
{
    if (!text.ptr) {
        request->query = (struct slice){NULL, 0};
        return ACCESS_FOUND;
    }
    if (!target_valid(text, true))
        return ACCESS_INVALID;
    struct slice copy = arena_copy(request->arena, text);
    if (!copy.ptr)
        return ACCESS_MEMORY;
    request->query = copy;
    return ACCESS_FOUND;
}

static bool authority_valid(struct slice text)
{
    if (!text.len)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c <= ' ' || c >= 0x7f || memchr("/?#@\\\"<>^`{|}", c, 13))
            return false;
    }
    return true;
}

/* The origin learns of a host by the Host field: the two must never differ. */
static int set_host(struct request *request, struct slice text)
{
    if (!authority_valid(text))
        return ACCESS_INVALID;
    struct slice copy = arena_copy(request->arena, text);
    if (!copy.ptr || headers_set(&request->headers, SLICE("Host"), copy) != 0)
        return ACCESS_MEMORY;
    request->authority = copy;
    return ACCESS_FOUND;
}

/* A client whom a proxy in front has told of, without a port. */
static int set_ip(struct request *request, struct slice text)
{
    const char *format = text.len && memchr(text.ptr, ':', text.len) ? "[%.*s]:0" : "%.*s:0";
    struct slice whole = arena_printf(request->arena, format, (int)text.len, text.ptr);
    struct address *remote = arena_zalloc(request->arena, sizeof(*remote));
    const char *why;
    if (!whole.ptr || !remote)
        return ACCESS_MEMORY;
    if (address_parse(whole, remote, &why) != 0)
        return ACCESS_INVALID;
    request->remote = remote;
    return ACCESS_FOUND;
}

int script_request_set(intptr_t address, uint32_t generation, int field, const char *text,
                       size_t len)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    switch (field) {
    case FIELD_METHOD:
        return set_method(request, slice_of(text, len));
    case FIELD_PATH:
        return set_path(request, slice_of(text, len));
    case FIELD_QUERY:
        return set_query(request, slice_of(text, len));
    case FIELD_HOST:
        return set_host(request, slice_of(text, len));
    case FIELD_IP:
        return set_ip(request, slice_of(text, len));
    default:
        return ACCESS_INVALID;
    }
}

int script_request_log(intptr_t address, uint32_t generation, const char *name, const char *text,
                       size_t len, int plain)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    struct slice *logged = &request->exchange->logged;
    struct log_line line;
    line.len = 0;
    log_line_put(&line, "%.*s", (int)logged->len, logged->ptr ? logged->ptr : "");
    if (plain)
        log_line_put(&line, ",\"%s\":%s", name, text);
    else
        log_line_member(&line, name, slice_of(text, len));
    if (line.len > LOG_LINE_LOGGED_MAX_BYTES)
        return ACCESS_NONE;
    struct slice copy = arena_copy(request->arena, slice_of(line.text, line.len));
    if (!copy.ptr)
        return ACCESS_MEMORY;
    *logged = copy;
    return ACCESS_FOUND;
}

int script_param(intptr_t address, uint32_t generation, const char *name, size_t len,
                 struct script_text *out)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    struct slice wanted = slice_of(name, len);
    for (unsigned i = 0; i < request->param_count; i++)
        if (slice_equal(request->params[i].name, wanted))
            return found(request->params[i].value, out);
    return ACCESS_NONE;
}

int script_param_at(intptr_t address, uint32_t generation, unsigned index, struct script_text *name,
                    struct script_text *out)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    if (index >= request->param_count)
        return ACCESS_NONE;
    found(request->params[index].name, name);
    return found(request->params[index].value, out);
}

/* --- Fields ---------------------------------------------------------------------------------- */

static struct thrift_message *thrift_of(struct request *request, intptr_t message)
{
    if (message == (intptr_t)request)
        return request->thrift;
    return ((struct response *)message)->thrift;
}

static struct headers *part_of(struct request *request, intptr_t message, int part)
{
    if (part == PART_NUMBERS)
        return &thrift_of(request, message)->numbers;
    if (message == (intptr_t)request)
        return part == PART_TRAILERS ? &request->trailers : &request->headers;
    struct response *response = (struct response *)message;
    return part == PART_TRAILERS ? &response->trailers : &response->headers;
}

int script_header_get(intptr_t address, uint32_t generation, intptr_t message, int part,
                      const char *name, size_t name_len, struct script_text *out)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    return found(headers_get(part_of(request, message, part), slice_of(name, name_len)), out);
}

typedef int change_headers(struct headers *headers, struct slice name, struct slice value);

static int change(change_headers *how, intptr_t address, uint32_t generation, intptr_t message,
                  int part, struct slice name, struct slice value)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    value = slice_trim(value);
    if (!header_name_valid(name) || !header_value_valid(value))
        return ACCESS_INVALID;
    name = arena_copy(request->arena, name);
    value = arena_copy(request->arena, value);
    if (!name.ptr || !value.ptr || how(part_of(request, message, part), name, value) != 0)
        return ACCESS_MEMORY;
    return ACCESS_FOUND;
}

int script_header_set(intptr_t address, uint32_t generation, intptr_t message, int part,
                      const char *name, size_t name_len, const char *value, size_t value_len)
{
    return change(headers_set, address, generation, message, part, slice_of(name, name_len),
                  slice_of(value, value_len));
}

int script_header_add(intptr_t address, uint32_t generation, intptr_t message, int part,
                      const char *name, size_t name_len, const char *value, size_t value_len)
{
    return change(headers_add, address, generation, message, part, slice_of(name, name_len),
                  slice_of(value, value_len));
}

int script_header_remove(intptr_t address, uint32_t generation, intptr_t message, int part,
                         const char *name, size_t name_len)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    headers_remove(part_of(request, message, part), slice_of(name, name_len));
    return ACCESS_FOUND;
}

int script_header_next(intptr_t address, uint32_t generation, intptr_t message, int part,
                       uint32_t *at, struct script_text *name, struct script_text *value)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    const struct header *header = headers_next(part_of(request, message, part), at);
    if (!header)
        return ACCESS_NONE;
    found(header->name, name);
    found(header->value, value);
    return ACCESS_FOUND;
}

/* --- Responses ------------------------------------------------------------------------------- */

int script_response_status(intptr_t address, uint32_t generation, intptr_t response)
{
    return live(address, generation) ? ((struct response *)response)->status : ACCESS_OVER;
}

int script_response_set_status(intptr_t address, uint32_t generation, intptr_t response, int status)
{
    if (!live(address, generation))
        return ACCESS_OVER;
    if (status < 200 || status > 599)
        return ACCESS_INVALID;
    ((struct response *)response)->status = (uint16_t)status;
    return ACCESS_FOUND;
}

int script_response_error(intptr_t address, uint32_t generation, intptr_t response,
                          struct script_text *out)
{
    if (!live(address, generation))
        return ACCESS_OVER;
    const struct response *failed = (const struct response *)response;
    return failed->error == RESPONSE_OK ? ACCESS_NONE : found(failed->error_text, out);
}

double script_response_make(intptr_t address, uint32_t generation, int status, const char *type,
                            size_t type_len, const char *body, size_t body_len)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    if (status < 200 || status > 599)
        return ACCESS_INVALID;
    struct response *response = response_create(request, (uint16_t)status);
    if (!response)
        return ACCESS_MEMORY;
    if (type_len) {
        struct slice copy = arena_copy(request->arena, slice_of(type, type_len));
        if (!copy.ptr ||
            headers_add_id(&response->headers, HEADER_CONTENT_TYPE, SLICE("Content-Type"), copy))
            return ACCESS_MEMORY;
    }
    if (body_len) {
        struct slice copy = arena_copy(request->arena, slice_of(body, body_len));
        if (!copy.ptr)
            return ACCESS_MEMORY;
        body_init_bytes(&response->body, copy);
    }
    return (double)(uintptr_t)response;
}

double script_response_fail(intptr_t address, uint32_t generation, int status, const char *why,
                            size_t why_len)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    enum response_error error = status == 413 ? RESPONSE_BODY_TOO_LARGE : RESPONSE_LAYER_FAILED;
    struct response *response =
        response_create_error(request, (uint16_t)status, error, slice_of(why, why_len));
    return response ? (double)(uintptr_t)response : ACCESS_MEMORY;
}

/* --- Bodies ---------------------------------------------------------------------------------- */

static struct body *body_of(struct request *request, intptr_t message)
{
    if (message == (intptr_t)request)
        return &request->body;
    return &((struct response *)message)->body;
}

int script_body_set(intptr_t address, uint32_t generation, intptr_t message, const char *bytes,
                    size_t len)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    struct slice copy = arena_copy(request->arena, slice_of(bytes, len));
    if (!copy.ptr)
        return ACCESS_MEMORY;
    struct body *body = body_of(request, message);
    if (script_body_running(body))
        return ACCESS_INVALID;
    if (!script_body_take(request, body))
        return ACCESS_MEMORY;
    headers_remove_id(part_of(request, message, PART_HEADERS), HEADER_CONTENT_LENGTH);
    body_init_bytes(body, copy);
    return ACCESS_FOUND;
}

double script_body_address(intptr_t address, uint32_t generation, intptr_t message, int take)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    struct body *body = body_of(request, message);
    if (script_body_running(body))
        return ACCESS_INVALID;
    if (take && !body_is_empty(body))
        body = script_body_take(request, body);
    return body ? (double)(uintptr_t)body : ACCESS_MEMORY;
}

int script_body_stream(intptr_t address, uint32_t generation, intptr_t message, int index, int map)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    struct body *body = body_of(request, message);
    if (script_body_running(body))
        return ACCESS_INVALID;
    int result = script_body_attach(request, body, index, map);
    if (result == 0)
        headers_remove_id(part_of(request, message, PART_HEADERS), HEADER_CONTENT_LENGTH);
    return result == 0 ? ACCESS_FOUND : result == -EINVAL ? ACCESS_INVALID : ACCESS_MEMORY;
}

int script_body_busy(intptr_t address, uint32_t generation)
{
    struct request *request = live(address, generation);
    return request && request->exchange->body_user;
}

/* --- Thrift ---------------------------------------------------------------------------------- */

int script_thrift_text(intptr_t address, uint32_t generation, intptr_t message, int field,
                       struct script_text *out)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    const struct thrift_message *thrift = thrift_of(request, message);
    if (!thrift)
        return ACCESS_NONE;
    switch (field) {
    case FIELD_THRIFT_METHOD:
        return found(thrift->method, out);
    case FIELD_THRIFT_TYPE:
        return found(slice_from_cstr(thrift_type_name(thrift->type)), out);
    case FIELD_THRIFT_PROTOCOL:
        return found(slice_from_cstr(thrift_protocol_name(thrift->protocol)), out);
    case FIELD_THRIFT_TRANSPORT:
        return found(slice_from_cstr(thrift_transport_name(thrift->transport)), out);
    default:
        return ACCESS_INVALID;
    }
}

int script_thrift_seqid(intptr_t address, uint32_t generation, intptr_t message, int32_t *seqid)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    const struct thrift_message *thrift = thrift_of(request, message);
    if (thrift) /* replies go out with that of their call */
        *seqid = request->thrift->seqid;
    return thrift ? ACCESS_FOUND : ACCESS_NONE;
}

int script_thrift_options(intptr_t address, uint32_t generation, double *idempotent,
                          double *timeout_ms)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    struct thrift_message *thrift = request->thrift;
    if (!thrift)
        return ACCESS_NONE;
    if (*idempotent >= 0)
        thrift->idempotent = *idempotent > 0;
    if (*timeout_ms >= 0)
        thrift->timeout_ms = (uint32_t)*timeout_ms;
    *idempotent = thrift->idempotent;
    *timeout_ms = thrift->timeout_ms;
    return ACCESS_FOUND;
}

double script_thrift_exception(intptr_t address, uint32_t generation, int kind, const char *text,
                               size_t len)
{
    struct request *request = live(address, generation);
    if (!request)
        return ACCESS_OVER;
    if (!request->thrift || kind < 0 || kind > THRIFT_EXCEPTION_MAX)
        return ACCESS_INVALID;
    struct response *response =
        thrift_create_exception(request, (enum thrift_exception)kind, slice_of(text, len));
    return response ? (double)(uintptr_t)response : ACCESS_MEMORY;
}

/* --- Clocks ---------------------------------------------------------------------------------- */

double script_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double script_clock(void)
{
    return (double)clock_now_us() / 1e6;
}
