#include "http/h2_connection.h"

#include <errno.h>
#include <stdlib.h>

#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"

/* How long, and for how much, the rest of a request is waited for whose response is complete: most
 * are in flight already, and a reset that crosses them helps nobody. */
enum { LINGER_MS = 250, LINGER_BYTES_MAX = 65536 };

static const struct exchange_codec h2_codec = {.send_interim = h2_send_interim};

/* The request has lost its purpose, and the client may stop (RFC 9113 section 8.1). */
static void linger_over(struct timer *timer)
{
    h2_stream_reset(timer->owner, NGHTTP2_NO_ERROR);
}

struct h2_stream *h2_stream_create(struct h2_connection *connection, int32_t id)
{
    struct h2_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->exchange = exchange_begin(connection->base->server->io);
    if (!stream->exchange) {
        free(stream);
        return NULL;
    }
    stream->connection = connection;
    stream->id = id;
    stream->open = true;
    timer_init(&stream->linger, linger_over, stream);
    h2_input_init(&stream->input, &connection->transport, id);
    h2_output_init(&stream->output, &connection->transport, id);
    list_push_back(&connection->streams, &stream->link);
    connection->stream_count++;
    return stream;
}

static void end_exchange(struct h2_stream *stream)
{
    exchange_end(stream->exchange);
    stream->exchange = NULL;
    h2_input_release(&stream->input);
}

/* Neither the session nor a coroutine refers to it any more. */
static void destroy(struct h2_stream *stream)
{
    struct h2_connection *connection = stream->connection;
    if (stream->exchange)
        end_exchange(stream);
    h2_input_release(&stream->input);
    list_remove(&stream->link);
    free(stream);
    connection->stream_count--;
    h2_connection_stream_ended(connection);
}

void h2_stream_reset(struct h2_stream *stream, uint32_t code)
{
    struct h2_transport *transport = &stream->connection->transport;
    if (!stream->open || transport->ending)
        return;
    if (nghttp2_submit_rst_stream(transport->session, NGHTTP2_FLAG_NONE, stream->id, code) != 0)
        h2_transport_end(transport, -ENOMEM);
    h2_transport_flush(transport);
}

void h2_stream_linger(struct h2_stream *stream)
{
    struct io *io = stream->connection->base->server->io;
    stream->finished_at = stream->input.received;
    timer_start(io_timers(io), &stream->linger, io_now_ms(io) + LINGER_MS);
}

void h2_stream_still_receives(struct h2_stream *stream)
{
    if (stream->input.received - stream->finished_at <= LINGER_BYTES_MAX)
        return;
    timer_stop(&stream->linger);
    h2_stream_reset(stream, NGHTTP2_NO_ERROR);
}

/* --- Answering -------------------------------------------------------------------------------- */

static int answer(struct h2_stream *stream)
{
    struct exchange *exchange = stream->exchange;
    if (stream->refusal) {
        int sent = h2_send_refusal(stream);
        connection_note_refusal(stream->connection->base, exchange, stream->refusal, stream->why);
        return sent;
    }
    counters_add(COUNTER_REQUESTS_H2, 1);
    connection_begin_exchange(stream->connection->base, exchange, &h2_codec, stream->coro);
    exchange->connection = stream;
    struct response *response = connection_answer(exchange);
    if (!response)
        return -ECANCELED;
    int result = h2_send_response(stream, response);
    body_release(&response->body);
    return result;
}

/* What the client is told of a response that broke off. */
static uint32_t reset_code(const struct h2_stream *stream, int error)
{
    if (stream->tunnel)
        return NGHTTP2_CONNECT_ERROR; /* RFC 9113, 8.5 */
    return error == -ETIMEDOUT || error == -ECANCELED ? NGHTTP2_CANCEL : NGHTTP2_INTERNAL_ERROR;
}

static void stream_main(void *arg)
{
    struct h2_stream *stream = arg;
    int result = answer(stream);
    if (result < 0) {
        log_debug("response to request %llu broke off: %s",
                  (unsigned long long)stream->exchange->request.id, strerror(-result));
        h2_stream_reset(stream, reset_code(stream, result));
    }
    arena_run_defers(&stream->exchange->arena); /* ends an upload, which reads the body too */
    end_exchange(stream);
    stream->coro = NULL;
    if (!stream->open)
        destroy(stream);
}

int h2_stream_start(struct h2_stream *stream)
{
    stream->coro = coro_start(stream_main, stream);
    return stream->coro ? 0 : -ENOMEM;
}

/* --- Ending ----------------------------------------------------------------------------------- */

void h2_stream_cancel(struct h2_stream *stream)
{
    stream->open = false;
    timer_stop(&stream->linger);
    h2_input_fail(&stream->input, -ECONNRESET);
    h2_output_fail(&stream->output, -ECONNRESET);
    if (stream->coro)
        coro_cancel(stream->coro);
    else
        destroy(stream);
}

void h2_stream_closed(struct h2_stream *stream, uint32_t code)
{
    if (!stream->finished || code != NGHTTP2_NO_ERROR) {
        h2_stream_cancel(stream);
        return;
    }
    /* All was said by both: what answers has only to clean up. */
    stream->open = false;
    timer_stop(&stream->linger);
    if (!stream->coro)
        destroy(stream);
}
