/* What an HTTP/2 origin sends: the session's callbacks. All run inside h2_transport, and none frees
 * or closes the session. */
#include "http/h2_client_stream.h"

#include <errno.h>

static struct h2_client_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* Makes the session reset the stream; the reader hears why. */
static int refuse(struct h2_client_stream *stream, const char *why)
{
    if (!stream->why)
        stream->why = why;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* --- Heads and trailers ----------------------------------------------------------------------- */

static int begin_head(struct h2_client_stream *stream)
{
    struct arena *arena = stream->exchange.request->arena;
    if (stream->head_count++ >= H2_CLIENT_HEADS_MAX)
        return refuse(stream, "too many interim responses");
    struct h2_client_head *head = arena_zalloc(arena, sizeof(*head));
    if (!head)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    headers_init(&head->headers, arena);
    head->length = -1;
    if (stream->heads)
        stream->last->next = head;
    else
        stream->heads = head;
    stream->last = head;
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_client_stream *stream = stream_of(session, frame->hd.stream_id);
    (void)user_data;
    if (!stream || !stream->held)
        return 0;
    stream->field_bytes = stream->field_count = 0;
    if (!stream->exchange.request)
        return refuse(stream, "trailers in a tunnel");
    if (!stream->head_seen)
        return begin_head(stream);
    headers_init(&stream->trailers, stream->exchange.request->arena);
    return 0;
}

static int add_field(struct headers *headers, struct slice name, struct slice value)
{
    name = arena_copy(headers->arena, name);
    value = arena_copy(headers->arena, value);
    if (!name.ptr || !value.ptr || headers_add(headers, name, value) != 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

/* The session has checked that there are three digits. */
static uint16_t parse_status(struct slice value)
{
    unsigned status = 0;
    for (size_t i = 0; i < value.len; i++)
        status = status * 10 + (unsigned)(value.ptr[i] - '0');
    return (uint16_t)status;
}

/* The session has checked it, too. */
static int64_t parse_length(struct slice value)
{
    int64_t length = 0;
    for (size_t i = 0; i < value.len; i++)
        length = length * 10 + (value.ptr[i] - '0');
    return length;
}

static int on_head_field(struct h2_client_stream *stream, struct slice name, struct slice value)
{
    struct h2_client_head *head = stream->last;
    if (slice_equal(name, SLICE(":status"))) {
        head->status = parse_status(value);
        if (head->status < 100 || head->status > 599 || head->status == 101)
            return refuse(stream, "a status that HTTP/2 does not have");
        return 0;
    }
    int result = add_field(&head->headers, name, value);
    if (result == 0 && slice_equal(name, SLICE("content-length")))
        head->length = parse_length(value);
    return result;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user_data)
{
    struct h2_client_stream *stream = stream_of(session, frame->hd.stream_id);
    (void)flags;
    (void)user_data;
    if (!stream || !stream->held)
        return 0;
    stream->field_bytes += (uint32_t)(name_len + value_len + 32);
    if (stream->field_bytes > stream->exchange.head_max_bytes)
        return refuse(stream, "the head is too long");
    if (++stream->field_count > CLIENT_RESPONSE_FIELDS_MAX)
        return refuse(stream, "too many header fields");
    struct slice name_slice = slice_of((const char *)name, name_len);
    struct slice value_slice = slice_of((const char *)value, value_len);
    if (stream->head_seen)
        return header_may_trail(header_id_of(name_slice))
                   ? add_field(&stream->trailers, name_slice, value_slice)
                   : 0;
    return on_head_field(stream, name_slice, value_slice);
}

/* Without this the session would drop the field and let the rest pass. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             const uint8_t *name, size_t name_len, const uint8_t *value,
                             size_t value_len, uint8_t flags, void *user_data)
{
    struct h2_client_stream *stream = stream_of(session, frame->hd.stream_id);
    (void)name;
    (void)name_len;
    (void)value;
    (void)value_len;
    (void)flags;
    (void)user_data;
    if (stream)
        refuse(stream, "a malformed header field");
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code,
                            void *user_data)
{
    struct h2_client_stream *stream =
        frame->hd.stream_id ? stream_of(session, frame->hd.stream_id) : NULL;
    (void)code;
    (void)user_data;
    if (stream)
        refuse(stream, frame->hd.type == NGHTTP2_HEADERS ? "a malformed head or trailer section"
                                                         : "a malformed frame");
    return 0;
}

static void head_complete(struct h2_client_stream *stream)
{
    if (stream->head_seen || !stream->last)
        return;
    stream->last->complete = true;
    stream->head_seen = stream->last->status >= 200;
    stream->client->answered = true;
    stream->client->refusing = false;
    h2_client_stream_wake(stream);
}

/* --- Frames ----------------------------------------------------------------------------------- */

static void on_stream_frame(struct h2_client_stream *stream, const nghttp2_frame *frame)
{
    bool headers = frame->hd.type == NGHTTP2_HEADERS;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        stream->reset_by_origin = true;
    if (headers)
        head_complete(stream);
    if ((headers || frame->hd.type == NGHTTP2_DATA) && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        h2_input_end(&stream->input);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_client *client = user_data;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        client->draining = true;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        client->settled = h2_client_allowed(client) > 0;
    if (client->settled || client->draining)
        h2_client_wake_opener(client);
    if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK)
        client->pinged = false;
    if (!frame->hd.stream_id)
        return 0;
    struct h2_client_stream *stream = stream_of(session, frame->hd.stream_id);
    if (stream && stream->held)
        on_stream_frame(stream, frame);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t len, void *user_data)
{
    struct h2_client *client = user_data;
    struct h2_client_stream *stream = stream_of(session, id);
    (void)flags;
    h2_transport_received(&client->transport, len);
    if (!stream || !stream->held)
        return 0; /* it is reset: its window does not matter */
    return h2_input_push(&stream->input, data, len) < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user_data)
{
    struct h2_client_stream *stream = stream_of(session, id);
    (void)user_data;
    if (stream)
        h2_client_stream_closed(stream, code);
    return 0;
}

/* A request that the session could not send, since the origin says goodbye. */
static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int code,
                             void *user_data)
{
    const struct h2_client *client = user_data;
    (void)session;
    (void)code;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    list_for_each(node, &client->streams)
    {
        struct h2_client_stream *stream = container_of(node, struct h2_client_stream, link);
        if (stream->id != frame->hd.stream_id || stream->head_count)
            continue;
        stream->refused = true; /* the session closes it next */
        break;
    }
    return 0;
}

/* Of all that the session complains of, what a wrong configuration looks like. */
static int on_error(nghttp2_session *session, int code, const char *text, size_t len,
                    void *user_data)
{
    struct h2_client *client = user_data;
    (void)session;
    (void)text;
    (void)len;
    if (code == NGHTTP2_ERR_SETTINGS_EXPECTED)
        client->why = "the origin does not speak HTTP/2";
    return 0;
}

const nghttp2_session_callbacks *h2_client_callbacks(void)
{
    static nghttp2_session_callbacks *callbacks;
    if (callbacks)
        return callbacks;
    callbacks = h2_transport_callbacks();
    if (!callbacks)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_error_callback2(callbacks, on_error);
    return callbacks;
}
