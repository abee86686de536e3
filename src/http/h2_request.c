/*
 * What the fields of a request mean (RFC 9113 sections 8.2 and 8.3). nghttp2 has seen to the order
 * and number of pseudo-header fields, to lower-case names, to bytes that no value may have, and to
 * fields of HTTP/1 connections; what it leaves is judged here, before anything is forwarded.
 */
#include "http/h2_connection.h"

#include <errno.h>
#include <sys/random.h>

#include "base/clock.h"
#include "http/h1_target.h"

enum {
    FIELD_OVERHEAD_BYTES = 32, /* as SETTINGS_MAX_HEADER_LIST_SIZE counts a field */
    HEAD_EXCESS_FACTOR = 4,    /* a head so many times too long is not even refused politely */
};

static int request_body_read(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct h2_input *input = body->source;
    struct h2_stream *stream = container_of(input, struct h2_stream, input);
    struct request *request = &stream->exchange->request; /* a layer may have moved the body */
    if (request->expects_continue && deadline != DEADLINE_NOW && !input->first && !input->ended) {
        int result = h2_send_interim(stream->exchange, 100, NULL);
        if (result < 0)
            return result;
    }
    return h2_input_read(input, body, out, max, deadline);
}

static void request_body_release(struct body *body)
{
    h2_input_release(body->source);
}

static const struct body_ops request_body_ops = {
    .read = request_body_read,
    .release = request_body_release,
};

/* --- Fields ----------------------------------------------------------------------------------- */

static void refuse(struct h2_stream *stream, uint16_t status, const char *why)
{
    if (stream->refusal)
        return;
    stream->refusal = status;
    stream->why = why;
}

/* Counts a field. Returns 1 if it is to be kept, 0 if it is one too many, or -EMSGSIZE. */
static int account(struct h2_stream *stream, struct slice name, struct slice value)
{
    const struct listener_config *config = &stream->connection->base->server->config;
    stream->head_bytes += (uint32_t)(name.len + value.len) + FIELD_OVERHEAD_BYTES;
    stream->field_count += name.ptr[0] != ':';
    if (stream->head_bytes / HEAD_EXCESS_FACTOR > config->head_max_bytes)
        return -EMSGSIZE;
    const char *why = NULL;
    if (stream->head_bytes > config->head_max_bytes)
        why = "the head is too long";
    else if (stream->field_count > config->header_count_max)
        why = "too many header fields";
    if (!why)
        return 1;
    if (stream->head_complete)
        stream->bad_trailers = true;
    else
        refuse(stream, 431, why);
    return 0;
}

static int add_pseudo(struct h2_stream *stream, struct slice name, struct slice value)
{
    struct request *request = &stream->exchange->request;
    if (slice_equal(name, SLICE(":method")))
        request->method_name = value;
    else if (slice_equal(name, SLICE(":path")))
        stream->path = value;
    else if (slice_equal(name, SLICE(":scheme")))
        stream->scheme = value;
    else if (slice_equal(name, SLICE(":protocol")))
        stream->protocol = value;
    else
        stream->authority = value;
    return 0;
}

int h2_request_add_field(struct h2_stream *stream, struct slice name, struct slice value)
{
    int verdict = account(stream, name, value);
    if (verdict <= 0)
        return verdict;
    struct exchange *exchange = stream->exchange;
    if (!exchange)
        return 0; /* trailers of a body that nobody reads any more */
    struct arena *arena = &exchange->arena;
    enum header_id id = header_id_of(name);
    if (stream->head_complete && !header_may_trail(id))
        return 0;
    name = arena_copy(arena, name);
    value = arena_copy(arena, value);
    if (!name.ptr || !value.ptr)
        return -ENOMEM;
    if (name.ptr[0] == ':')
        return add_pseudo(stream, name, value);
    struct request *request = &exchange->request;
    return headers_add_id(stream->head_complete ? &request->trailers : &request->headers, id, name,
                          value);
}

/* --- The head --------------------------------------------------------------------------------- */

/* Crumbs of a cookie are one field everywhere else (RFC 9113 section 8.2.3). */
static int join_cookies(struct headers *headers)
{
    struct header *first = headers_find_id(headers, HEADER_COOKIE, NULL);
    struct header *next = first ? headers_find_id(headers, HEADER_COOKIE, first) : NULL;
    if (!next)
        return 0;
    size_t len = first->value.len;
    for (struct header *crumb = next; crumb; crumb = headers_find_id(headers, HEADER_COOKIE, crumb))
        len += 2 + crumb->value.len;
    char *text = arena_alloc(headers->arena, len);
    if (!text)
        return -ENOMEM;
    size_t at = first->value.len;
    memcpy(text, first->value.ptr, at);
    for (; next; next = headers_find_id(headers, HEADER_COOKIE, next)) {
        memcpy(text + at, "; ", 2);
        memcpy(text + at + 2, next->value.ptr, next->value.len);
        at += 2 + next->value.len;
        next->removed = true;
    }
    first->value = slice_of(text, len);
    return 0;
}

/* :authority and Host name the same, without user information (RFC 9113 section 8.3.1). Layers and
 * origins of HTTP/1 find it in Host. */
static int read_authority(struct h2_stream *stream)
{
    struct request *request = &stream->exchange->request;
    const struct header *host = headers_find_id(&request->headers, HEADER_HOST, NULL);
    if (host && headers_find_id(&request->headers, HEADER_HOST, host))
        return -EPROTO;
    if (host && stream->authority.ptr && !slice_equal_nocase(host->value, stream->authority))
        return -EPROTO;
    struct slice authority = stream->authority.ptr ? stream->authority
                             : host                ? host->value
                                                   : slice_of(NULL, 0);
    if (!h1_authority_valid(authority))
        return -EPROTO;
    request->authority = authority;
    return host ? 0 : headers_add_id(&request->headers, HEADER_HOST, SLICE("host"), authority);
}

/* A key for origins of HTTP/1, which HTTP/2 does without: 16 random bytes in Base64 (RFC 6455,
 * 4.1), letter by letter. The last one stands for two bits only. */
static int add_websocket_key(struct headers *headers)
{
    enum { LETTERS = 22 };
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t random[LETTERS];
    char *key = arena_alloc(headers->arena, LETTERS + 2);
    if (!key)
        return -ENOMEM;
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    for (unsigned i = 0; i < LETTERS; i++)
        key[i] = alphabet[random[i] % 64 & (i + 1 < LETTERS ? 63 : 48)];
    memcpy(key + LETTERS, "==", 2);
    return headers_add_id(headers, HEADER_OTHER, SLICE("sec-websocket-key"),
                          slice_of(key, LETTERS + 2));
}

/* An extended CONNECT is what an Upgrade is in HTTP/1 (RFC 8441, 5), and layers and origins get to
 * see it as one. */
static int become_upgrade(struct h2_stream *stream)
{
    struct request *request = &stream->exchange->request;
    request->method = METHOD_GET;
    request->method_name = SLICE("GET");
    request->wants_upgrade = true;
    stream->exchange->received_method = METHOD_GET;
    int result =
        headers_add_id(&request->headers, HEADER_UPGRADE, SLICE("upgrade"), stream->protocol);
    if (result == 0 && slice_equal_nocase(stream->protocol, SLICE("websocket")) &&
        !headers_get(&request->headers, SLICE("sec-websocket-key")).ptr)
        result = add_websocket_key(&request->headers);
    return result;
}

static int read_target(struct h2_stream *stream)
{
    struct request *request = &stream->exchange->request;
    struct slice none;
    const char *why;
    stream->wants_tunnel = request->method == METHOD_CONNECT;
    if (stream->protocol.ptr) {
        int result = stream->wants_tunnel ? become_upgrade(stream) : -EPROTO;
        if (result < 0)
            return result;
    }
    if (request->method == METHOD_CONNECT)
        return !stream->path.ptr && !stream->scheme.ptr && stream->authority.len &&
                       h1_target_parse(request, stream->authority, &none, &why) == 0
                   ? 0
                   : -EPROTO;
    bool http = slice_equal_nocase(stream->scheme, SLICE("http")) ||
                slice_equal_nocase(stream->scheme, SLICE("https"));
    /* An absolute target is HTTP/1's. */
    bool form =
        stream->path.len && (stream->path.ptr[0] == '/' || slice_equal(stream->path, SLICE("*")));
    return http && form && h1_target_parse(request, stream->path, &none, &why) == 0 ? 0 : -EPROTO;
}

/* The digits of Content-Length, which nghttp2 has checked and will hold against the DATA. */
static int64_t declared_length(const struct request *request)
{
    struct slice text = headers_get_id(&request->headers, HEADER_CONTENT_LENGTH);
    int64_t length = 0;
    if (!text.len)
        return -1;
    for (size_t i = 0; i < text.len && length < INT64_MAX / 16; i++)
        length = length * 10 + (text.ptr[i] - '0');
    return length;
}

static void begin_body(struct h2_stream *stream, bool end_stream)
{
    const struct listener_config *config = &stream->connection->base->server->config;
    struct request *request = &stream->exchange->request;
    body_init_empty(&request->body);
    if (stream->wants_tunnel && !end_stream)
        return; /* what comes is read by h2_tunnel, if it comes to that */
    if (end_stream) {
        request->expects_continue = false;
        h2_input_end(&stream->input);
        return;
    }
    int64_t length = declared_length(request);
    request->body =
        (struct body){.ops = &request_body_ops, .source = &stream->input, .length = length};
    stream->input.timeout_ms = config->body_timeout_ms;
    stream->input.max_bytes = config->body_max_bytes;
    if (config->body_max_bytes && length > (int64_t)config->body_max_bytes)
        refuse(stream, 413, "the request body is longer than this server accepts");
}

static int read_head(struct h2_stream *stream)
{
    struct request *request = &stream->exchange->request;
    if (!header_name_valid(request->method_name))
        return -EPROTO;
    request->version = HTTP_2;
    request->keep_alive = true;
    int result = read_target(stream);
    if (result == 0)
        result = read_authority(stream);
    if (result == 0)
        result = join_cookies(&request->headers);
    request->expects_continue =
        slice_equal_nocase(headers_get_id(&request->headers, HEADER_EXPECT), SLICE("100-continue"));
    return result;
}

int h2_request_complete(struct h2_stream *stream, bool end_stream)
{
    const struct listener_config *config = &stream->connection->base->server->config;
    struct request *request = &stream->exchange->request;
    request->method = http_method_of(request->method_name);
    stream->exchange->received_method = request->method; /* frames a refusal as well */
    stream->head_complete = true;
    stream->head_bytes = stream->field_count = 0; /* trailers are counted anew */
    if (stream->path.len > config->request_line_max_bytes)
        refuse(stream, 414, "the request target is too long");
    if (!stream->refusal) { /* a refused head lacks the fields that were too many */
        int result = read_head(stream);
        if (result < 0)
            return result;
    }
    begin_body(stream, end_stream);
    return 0;
}
