#include "http/h2_output.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "io/wait.h"

void h2_output_init(struct h2_output *output, struct h2_transport *transport, int32_t stream_id)
{
    *output = (struct h2_output){.transport = transport, .stream_id = stream_id};
}

static void wake_sender(struct h2_output *output)
{
    if (output->sender)
        coro_wake(output->sender, 0);
}

/* The session asks how much of the next frame there is. */
static ssize_t read_source(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
                           uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
    (void)buf;
    (void)user_data;
    struct h2_output *output = source->ptr;
    if (!output->left && !output->last) {
        output->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t len = output->left < length ? output->left : length;
    if (len)
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (output->last && len == output->left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (output->trailer_count) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (nghttp2_submit_trailer(session, stream_id, output->trailers,
                                       output->trailer_count) != 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
        if (!len) {
            output->finished = true;
            wake_sender(output);
        }
    }
    return (ssize_t)len;
}

nghttp2_data_provider h2_output_provider(struct h2_output *output)
{
    return (nghttp2_data_provider){.source = {.ptr = output}, .read_callback = read_source};
}

void h2_output_take(struct h2_output *output, char *to, size_t length)
{
    assert(length <= output->left);
    output->left -= length;
    output->taken += length;
    while (length) {
        struct slice *piece = &output->pieces[output->at];
        size_t len = piece->len < length ? piece->len : length;
        memcpy(to, piece->ptr, len);
        to += len;
        length -= len;
        piece->ptr += len;
        piece->len -= len;
        if (!piece->len)
            output->at++;
    }
    if (output->left)
        return;
    output->finished = output->last;
    wake_sender(output);
}

void h2_output_fail(struct h2_output *output, int error)
{
    if (!output->error)
        output->error = error;
    output->left = 0; /* the slices are their owner's again */
    output->last = false;
    wake_sender(output);
}

static void hand_over(struct h2_output *output, const struct slice *pieces, unsigned count,
                      bool last)
{
    assert(!output->left && !output->last && count <= BODY_SLICES_MAX);
    output->count = output->at = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!pieces[i].len)
            continue;
        output->pieces[output->count++] = pieces[i];
        output->left += pieces[i].len;
    }
    output->last = last;
}

static bool all_taken(const struct h2_output *output)
{
    return output->error || (!output->left && (!output->last || output->finished));
}

/* Is it the peer's windows that let nothing through? Behind other streams it may take long, and of
 * a socket that takes nothing the connection dies. */
static bool shut_out(const struct h2_output *output, uint64_t data_bytes_before)
{
    const struct h2_transport *transport = output->transport;
    if (nghttp2_session_get_stream_remote_window_size(transport->session, output->stream_id) <= 0)
        return true;
    return nghttp2_session_get_remote_window_size(transport->session) <= 0 &&
           transport->data_bytes == data_bytes_before;
}

/* Waits for a wake, at most until the stall time. Returns 0, -ETIMEDOUT (0 if it only takes its
 * time) or -ECANCELED. */
static int await_progress(struct h2_output *output, uint32_t stall_ms, int64_t deadline)
{
    struct io *io = output->transport->stream->io;
    int64_t until = stall_ms ? io_now_ms(io) + stall_ms : deadline;
    uint64_t taken = output->taken;
    uint64_t data_bytes = output->transport->data_bytes;
    output->sender = coro_self();
    int result = wait_wake(io, until < deadline ? until : deadline);
    output->sender = NULL;
    if (result != -ETIMEDOUT || io_now_ms(io) >= deadline)
        return result;
    return output->taken != taken || !shut_out(output, data_bytes) ? 0 : result;
}

void h2_output_begin(struct h2_output *output, const struct slice *pieces, unsigned count,
                     bool last)
{
    hand_over(output, pieces, count, last);
    if (!output->left && !last)
        return;
    if (output->deferred) {
        output->deferred = false;
        nghttp2_session_resume_data(output->transport->session, output->stream_id);
    }
    h2_transport_flush(output->transport);
}

static int await_taken(struct h2_output *output, uint32_t stall_ms, int64_t deadline)
{
    int result = 0;
    while (result == 0 && !all_taken(output))
        result = await_progress(output, stall_ms, deadline);
    return all_taken(output) ? output->error : result;
}

int h2_output_send(struct h2_output *output, const struct slice *pieces, unsigned count, bool last,
                   uint32_t stall_ms, int64_t deadline)
{
    if (output->error)
        return output->error;
    int result = await_taken(output, stall_ms, deadline); /* what was begun */
    if (result == 0) {
        h2_output_begin(output, pieces, count, last);
        result = await_taken(output, stall_ms, deadline);
    }
    if (result < 0)
        h2_output_fail(output, result);
    return result;
}
