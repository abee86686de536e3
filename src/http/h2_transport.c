#include "http/h2_transport.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/h2_memory.h"
#include "http/h2_output.h"

enum {
    FRAME_MAX_BYTES = 9 + 16384,
    OUT_MAX_BYTES = 2 * FRAME_MAX_BYTES + 1024, /* two full DATA frames and some small ones */
    OUTBOUND_ACKS_MAX = 100,                    /* of SETTINGS and PING */
    SETTINGS_MAX = 32,                          /* entries of one frame */
    HEADER_BLOCK_MAX_BYTES = 262144,            /* sent */
    RESETS_UNBOUNDED = 1000000000,              /* the owner has its own budget (h2_guard.h) */
};

static void end_due(struct timer *timer)
{
    struct h2_transport *transport = timer->owner;
    transport->ops->ended(transport, transport->error);
}

void h2_transport_end(struct h2_transport *transport, int error)
{
    if (transport->ending)
        return;
    transport->ending = true;
    transport->error = error;
    struct io *io = transport->stream->io;
    timer_start(io_timers(io), &transport->end, io_now_ms(io));
}

/* --- Receiving -------------------------------------------------------------------------------- */

/* What the session could not answer by itself. */
static void receive_failed(struct h2_transport *transport, int code)
{
    bool flood = code == NGHTTP2_ERR_FLOODED || code == NGHTTP2_ERR_TOO_MANY_SETTINGS ||
                 code == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS;
    log_debug("an HTTP/2 connection cannot go on: %s", nghttp2_strerror(code));
    if (!flood) {
        h2_transport_end(transport, code == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO);
        return;
    }
    if (transport->ops->flooded)
        transport->ops->flooded(transport);
    h2_transport_terminate(transport, NGHTTP2_ENHANCE_YOUR_CALM);
}

static bool hears(const struct h2_transport *transport)
{
    return !transport->ending && !transport->deaf;
}

/* Of the frames that are queued those count that the peer has provoked: what its streams are to be
 * told is bounded by their number, and may be much when many are answered in one turn. */
static void feed(struct h2_transport *transport, const uint8_t *bytes, size_t len)
{
    if (!len || !hears(transport))
        return;
    nghttp2_session *session = transport->session;
    size_t before = nghttp2_session_get_outbound_queue_size(session);
    if (transport->provoked > before)
        transport->provoked = before; /* the others have been sent */
    ssize_t used = nghttp2_session_mem_recv(session, bytes, len);
    size_t after = nghttp2_session_get_outbound_queue_size(session);
    transport->provoked += after > before ? after - before : 0;
    if (used < 0)
        receive_failed(transport, (int)used);
    else if (transport->provoked > H2_PROVOKED_FRAMES_MAX)
        receive_failed(transport, NGHTTP2_ERR_FLOODED);
}

/* Feeds frame by frame, so that whoever hears of a frame's begin knows what came before it. */
static void feed_frames(struct h2_transport *transport, const uint8_t *bytes, size_t len)
{
    size_t fed = 0;
    for (size_t at = 0; at < len;) {
        struct h2_frame_head head;
        bool found;
        uint32_t payload = transport->scan.left;
        size_t end = payload < len - at ? at + payload : len; /* of the frame before */
        at += h2_scan_next(&transport->scan, bytes + at, len - at, &head, &found);
        if (!found)
            break;
        feed(transport, bytes + fed, end - fed);
        fed = end;
        if (hears(transport))
            transport->ops->frame_begun(transport, &head);
    }
    feed(transport, bytes + fed, len - fed);
}

/* Said all, heard all? */
static bool session_over(const struct h2_transport *transport)
{
    return !transport->rest_len && !nghttp2_session_want_read(transport->session) &&
           !nghttp2_session_want_write(transport->session);
}

/* The session's own GOAWAY makes it end when the last stream has. */
static void half_closed(struct h2_transport *transport)
{
    if (transport->ending || transport->deaf)
        return;
    transport->deaf = true;
    if (!transport->ops->half_closed) {
        h2_transport_end(transport, session_over(transport) ? 0 : -ECONNRESET);
        return;
    }
    nghttp2_session *session = transport->session;
    if (nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(session), NGHTTP2_NO_ERROR,
                              NULL, 0) != 0)
        h2_transport_end(transport, -ENOMEM);
    transport->ops->half_closed(transport);
}

void h2_transport_receive(struct h2_transport *transport)
{
    struct stream *stream = transport->stream;
    struct io_buf *buf;
    while ((buf = stream_take(stream))) {
        const uint8_t *bytes = (const uint8_t *)buf->data;
        if (transport->ops->frame_begun)
            feed_frames(transport, bytes, buf->len);
        else
            feed(transport, bytes, buf->len);
        io_buf_release(stream->io, buf);
    }
    if (stream->end == STREAM_EOF)
        half_closed(transport);
    else if (stream->end < 0)
        h2_transport_end(transport, -ECONNRESET);
    h2_transport_flush(transport);
}

void h2_transport_received(struct h2_transport *transport, size_t len)
{
    nghttp2_session_consume_connection(transport->session, len);
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void put_rest(struct h2_transport *transport)
{
    size_t room = OUT_MAX_BYTES - transport->out_len;
    size_t len = transport->rest_len < room ? transport->rest_len : room;
    if (!len)
        return;
    memcpy(transport->out + transport->out_len, transport->rest, len);
    transport->out_len += (uint32_t)len;
    transport->rest += len;
    transport->rest_len -= len;
}

/* Fills the buffer with frames. Returns 0 or a negative errno. */
static int gather(struct h2_transport *transport)
{
    transport->out_len = 0;
    put_rest(transport);
    while (!transport->rest_len) {
        ssize_t len = nghttp2_session_mem_send(transport->session, &transport->rest);
        if (len < 0)
            return len == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
        if (len == 0)
            return 0;
        transport->rest_len = (size_t)len;
        put_rest(transport);
    }
    return 0;
}

/* Puts the header and the bytes of a DATA frame into the buffer without a detour. */
static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header,
                     size_t length, nghttp2_data_source *source, void *user_data)
{
    (void)session;
    (void)frame; /* no padding is ever asked for */
    (void)user_data;
    struct h2_output *output = source->ptr;
    struct h2_transport *transport = output->transport;
    if (OUT_MAX_BYTES - transport->out_len < 9 + length)
        return NGHTTP2_ERR_WOULDBLOCK;
    if (output->left < length)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* its sender has given up meanwhile */
    memcpy(transport->out + transport->out_len, header, 9);
    h2_output_take(output, transport->out + transport->out_len + 9, length);
    transport->out_len += 9 + (uint32_t)length;
    transport->data_bytes += length;
    return 0;
}

static int send_round(struct h2_transport *transport)
{
    int result = gather(transport);
    if (result < 0 || !transport->out_len)
        return result;
    struct iovec iov = {transport->out, transport->out_len};
    return stream_send(transport->stream, &iov, 1, DEADLINE_NEVER);
}

static void finish_close(struct h2_transport *transport)
{
    struct stream *stream = transport->stream;
    bool reset = transport->reset;
    nghttp2_session_del(transport->session);
    transport->session = NULL;
    if (reset)
        stream_abort(stream);
    else
        stream_close(stream); /* may free the transport */
}

/* Writers come and go with each turn, so one buffer is kept between them. A worker has one thread.
 */
static char *spare;

static char *take_buffer(void)
{
    char *buffer = spare;
    spare = NULL;
    return buffer ? buffer : malloc(OUT_MAX_BYTES);
}

static void give_buffer(char *buffer)
{
    if (spare)
        free(buffer);
    else
        spare = buffer;
}

/* Sends until nothing is left. The transport may be freed by the last line. */
static void writer_main(void *arg)
{
    struct h2_transport *transport = arg;
    int result = 0;
    transport->out = take_buffer();
    if (!transport->out)
        result = -ENOMEM;
    transport->out_len = 0;
    while (result == 0 && !transport->ending) {
        result = send_round(transport);
        if (result == 0 && !transport->out_len)
            break;
    }
    give_buffer(transport->out);
    transport->out = NULL;
    transport->writer = NULL;
    if (result < 0)
        h2_transport_end(transport, result);
    else if (!transport->ending && session_over(transport))
        h2_transport_end(transport, 0);
    if (transport->closing)
        finish_close(transport);
}

void h2_transport_flush(struct h2_transport *transport)
{
    if (transport->writer || transport->ending || transport->closing)
        return;
    if (!transport->rest_len && !nghttp2_session_want_write(transport->session)) {
        if (!nghttp2_session_want_read(transport->session))
            h2_transport_end(transport, 0);
        return;
    }
    transport->writer = coro_start(writer_main, transport);
    if (!transport->writer) {
        log_no_memory("no memory for another coroutine: an HTTP/2 connection is closed");
        h2_transport_end(transport, -ENOMEM);
    }
}

/* --- Life ------------------------------------------------------------------------------------- */

nghttp2_session_callbacks *h2_transport_callbacks(void)
{
    nghttp2_session_callbacks *callbacks = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    return callbacks;
}

static int submit_settings(struct h2_transport *transport,
                           const struct h2_transport_options *options)
{
    nghttp2_settings_entry entries[5];
    size_t count = 0;
    uint32_t window = options->window_bytes ? options->window_bytes : H2_STREAM_WINDOW_BYTES;
    uint32_t shared = window > H2_CONNECTION_WINDOW_BYTES ? window : H2_CONNECTION_WINDOW_BYTES;
    entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window};
    entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
                                                options->header_list_max_bytes};
    if (options->server) {
        entries[count++] =
            (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options->streams_max};
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    } else {
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    if (nghttp2_submit_settings(transport->session, NGHTTP2_FLAG_NONE, entries, count) != 0)
        return -ENOMEM;
    return nghttp2_session_set_local_window_size(transport->session, NGHTTP2_FLAG_NONE, 0,
                                                 (int32_t)shared) == 0
               ? 0
               : -ENOMEM;
}

static int create_session(struct h2_transport *transport,
                          const struct h2_transport_options *options)
{
    nghttp2_option *option = NULL;
    if (nghttp2_option_new(&option) != 0)
        return -ENOMEM;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, OUTBOUND_ACKS_MAX);
    nghttp2_option_set_max_settings(option, SETTINGS_MAX);
    nghttp2_option_set_max_send_header_block_length(option, HEADER_BLOCK_MAX_BYTES);
    nghttp2_option_set_stream_reset_rate_limit(option, RESETS_UNBOUNDED, RESETS_UNBOUNDED);
    int result = options->server
                     ? nghttp2_session_server_new3(&transport->session, options->callbacks,
                                                   options->owner, option, h2_memory())
                     : nghttp2_session_client_new3(&transport->session, options->callbacks,
                                                   options->owner, option, h2_memory());
    nghttp2_option_del(option);
    return result == 0 ? 0 : -ENOMEM;
}

int h2_transport_init(struct h2_transport *transport, struct stream *stream,
                      const struct h2_transport_options *options)
{
    *transport =
        (struct h2_transport){.stream = stream, .ops = options->ops, .owner = options->owner};
    timer_init(&transport->end, end_due, transport);
    h2_scan_init(&transport->scan, options->server);
    if (create_session(transport, options) < 0)
        return -ENOMEM;
    if (submit_settings(transport, options) == 0)
        return 0;
    nghttp2_session_del(transport->session);
    transport->session = NULL;
    return -ENOMEM;
}

void h2_transport_terminate(struct h2_transport *transport, uint32_t code)
{
    if (transport->ending)
        return;
    transport->deaf = true;
    if (nghttp2_session_terminate_session(transport->session, code) != 0)
        h2_transport_end(transport, -ENOMEM);
    h2_transport_flush(transport);
}

void h2_transport_close(struct h2_transport *transport, bool reset)
{
    assert(!transport->closing);
    transport->closing = true;
    transport->ending = true;
    transport->reset = reset;
    timer_stop(&transport->end); /* the owner has no need to hear of it any more */
    if (transport->writer)
        coro_cancel(transport->writer); /* closes as the last that it does */
    else
        finish_close(transport);
}
