/*
 * What the session reports: messages to their streams. Callbacks run while the session is fed or
 * written from, so they delete nothing of it: streams are freed when the session has closed them,
 * the connection only after the transport has ended.
 */
#include "http/h2_callbacks.h"

#include <errno.h>

#include "base/log.h"
#include "http/h2_connection.h"
#include "http/h2_frames.h"

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* --- Requests --------------------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_connection *connection = user_data;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST || connection->transport.deaf)
        return 0;
    const struct listener_config *config = &connection->base->server->config;
    int32_t id = frame->hd.stream_id;
    connection->last_stream_id = id;
    h2_frames_count(connection, H2_EVENT_REQUEST);
    /* The client will take what is behind the last request for not looked at, and ask again.
     * Streams that were reset count until their coroutines have cleaned up. */
    struct h2_stream *stream = NULL;
    if (!connection->last_named && connection->stream_count / 2 < config->h2_streams_max)
        stream = h2_stream_create(connection, id);
    if (!stream)
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM) ==
                       0
                   ? 0
                   : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    nghttp2_session_set_stream_user_data(session, id, stream);
    return 0;
}

static struct slice slice_of_rcbuf(nghttp2_rcbuf *buf)
{
    nghttp2_vec vec = nghttp2_rcbuf_get_buf(buf);
    return slice_of((const char *)vec.base, vec.len);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *user_data)
{
    (void)flags;
    struct h2_connection *connection = user_data;
    struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
    if (!stream || connection->transport.deaf)
        return 0;
    int result = h2_request_add_field(stream, slice_of_rcbuf(name), slice_of_rcbuf(value));
    if (result == -EMSGSIZE) {
        h2_frames_calm(connection, COUNTER_H2_CALMED_FIELDS, "header fields in one request");
        return NGHTTP2_ERR_PAUSE; /* the rest of the block is never decoded */
    }
    return result < 0 ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
}

/* nghttp2 would leave the field out; we do not answer half of what was said. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                             void *user_data)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)value;
    (void)flags;
    (void)user_data;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* PROTOCOL_ERROR on the stream */
}

/* A stream too many of a client that has not acknowledged yet how many we allow is refused by the
 * session itself. More may be on its way on it, which is no fault. */
static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error,
                            void *user_data)
{
    (void)session;
    struct h2_connection *connection = user_data;
    if (frame->hd.type == NGHTTP2_HEADERS && error == NGHTTP2_ERR_REFUSED_STREAM)
        h2_closed_add(&connection->closed, frame->hd.stream_id, H2_CLOSED_BY_OUR_RESET);
    return 0;
}

static void refuse_stream(struct h2_stream *stream, uint32_t code, const char *why)
{
    connection_count_refusal(stream->connection->base, why);
    h2_stream_reset(stream, code);
}

static void refuse_for_memory(struct h2_stream *stream)
{
    log_no_memory("no memory for a request: a stream is refused");
    h2_stream_reset(stream, NGHTTP2_REFUSED_STREAM);
}

static void begin_request(struct h2_stream *stream, bool end_stream)
{
    struct h2_connection *connection = stream->connection;
    struct http_server *server = connection->base->server;
    int result = h2_request_complete(stream, end_stream);
    if (result == -ENOMEM) {
        refuse_for_memory(stream);
        return;
    }
    if (result < 0) {
        h2_stream_reset(stream, NGHTTP2_PROTOCOL_ERROR);
        return;
    }
    if (stream->refusal)
        connection_count_refusal(connection->base, stream->why);
    if (h2_stream_start(stream) < 0) {
        refuse_for_memory(stream);
        return;
    }
    connection->requests++;
    uint32_t requests_max = server->config.requests_max;
    if (requests_max && connection->requests >= requests_max && !connection->last_named)
        h2_connection_last_request(connection);
}

static void headers_received(struct h2_stream *stream, const nghttp2_frame *frame)
{
    bool end_stream = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        begin_request(stream, end_stream);
    else if (stream->bad_trailers)
        refuse_stream(stream, NGHTTP2_ENHANCE_YOUR_CALM, "its trailers are too long or too many");
    else if (end_stream)
        h2_input_end(&stream->input);
}

static void settings_received(struct h2_connection *connection, const nghttp2_frame *frame)
{
    if (frame->hd.flags & NGHTTP2_FLAG_ACK)
        timer_stop(&connection->settings);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_connection *connection = user_data;
    struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
    if (connection->transport.deaf)
        return 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (stream)
            headers_received(stream, frame);
        break;
    case NGHTTP2_DATA:
        if (stream && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
            h2_input_end(&stream->input);
        break;
    case NGHTTP2_RST_STREAM:
        if (stream)
            stream->reset_by_peer = true;
        if (stream && !stream->finished)
            h2_frames_count(connection, H2_EVENT_RESET);
        break;
    case NGHTTP2_SETTINGS:
        settings_received(connection, frame);
        break;
    default:
        break;
    }
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t stream_id,
                         const uint8_t *data, size_t len, void *user_data)
{
    (void)flags;
    struct h2_connection *connection = user_data;
    struct h2_stream *stream = stream_of(session, stream_id);
    h2_transport_received(&connection->transport, len);
    h2_frames_count(connection, H2_EVENT_DATA);
    if (stream && h2_input_push(&stream->input, data, len) < 0)
        h2_stream_reset(stream, NGHTTP2_INTERNAL_ERROR);
    else if (stream && stream->finished && !stream->tunnel)
        h2_stream_still_receives(stream);
    return 0;
}

/* --- What went out, and ends ------------------------------------------------------------------ */

static void reset_sent(struct h2_connection *connection, uint32_t code)
{
    switch (code) {
    case NGHTTP2_PROTOCOL_ERROR:
    case NGHTTP2_FLOW_CONTROL_ERROR:
    case NGHTTP2_STREAM_CLOSED:
    case NGHTTP2_FRAME_SIZE_ERROR:
    case NGHTTP2_ENHANCE_YOUR_CALM: /* its trailers are refused, behind a request that was served */
        h2_frames_count(connection, H2_EVENT_FAULT);
        break;
    case NGHTTP2_REFUSED_STREAM:
        h2_frames_count(connection, H2_EVENT_CONTROL);
        break;
    default:
        break;
    }
}

/* The response is complete; but the sides of a tunnel end apart. */
static void response_sent(struct h2_stream *stream)
{
    stream->finished = true;
    if (!stream->input.ended && !stream->tunnel)
        h2_stream_linger(stream);
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct h2_connection *connection = user_data;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        reset_sent(connection, frame->rst_stream.error_code);
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    if (frame->hd.type == NGHTTP2_DATA)
        h2_frames_count(connection, H2_EVENT_DATA);
    struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
    if (stream && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        response_sent(stream);
    return 0;
}

/* A response that came too late, or whose fields no frame can carry. */
static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error,
                             void *user_data)
{
    (void)user_data;
    struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
    if (!stream || frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    if (error == NGHTTP2_ERR_SESSION_CLOSING || error == NGHTTP2_ERR_STREAM_CLOSING ||
        error == NGHTTP2_ERR_STREAM_CLOSED) {
        h2_output_fail(&stream->output, -ECONNRESET);
        return 0;
    }
    log_warn("the fields of a response cannot be sent: %s", nghttp2_strerror(error));
    h2_output_fail(&stream->output, -EMSGSIZE);
    h2_stream_reset(stream, NGHTTP2_INTERNAL_ERROR);
    return 0;
}

/* Its head was malformed, for nghttp2 or for us. */
static void note_malformed(const struct h2_stream *stream)
{
    static const char why[] = "its HTTP/2 fields break a rule";
    connection_count_refusal(stream->connection->base, why);
    connection_note_refusal(stream->connection->base, stream->exchange, 400, why);
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t code,
                           void *user_data)
{
    struct h2_connection *connection = user_data;
    struct h2_stream *stream = stream_of(session, stream_id);
    if (!stream) {
        h2_closed_add(&connection->closed, stream_id, H2_CLOSED_BY_OUR_RESET);
        return 0;
    }
    h2_closed_add(&connection->closed, stream_id,
                  stream->reset_by_peer ? H2_CLOSED_BY_PEER_RESET
                  : stream->input.ended ? H2_CLOSED_BY_END
                                        : H2_CLOSED_BY_OUR_RESET);
    nghttp2_session_set_stream_user_data(session, stream_id, NULL);
    bool handled = !stream->exchange || stream->exchange->service || stream->refusal;
    if (code == NGHTTP2_PROTOCOL_ERROR && !handled && !stream->reset_by_peer)
        note_malformed(stream);
    h2_stream_closed(stream, code);
    return 0;
}

static nghttp2_session_callbacks *make(void)
{
    nghttp2_session_callbacks *made = h2_transport_callbacks();
    if (!made)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(made, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(made, on_invalid_header);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(made, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_send_callback(made, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(made, on_frame_not_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(made, on_stream_close);
    return made;
}

const nghttp2_session_callbacks *h2_callbacks(void)
{
    static nghttp2_session_callbacks *callbacks;
    if (!callbacks)
        callbacks = make();
    return callbacks;
}
