#include "http/h2_frames.h"

#include "base/log.h"

enum { LOGGED_PER_S = 1 };

void h2_frames_calm(struct h2_connection *connection, enum counter counter, const char *what)
{
    static struct log_limit limit;
    uint32_t suppressed;
    char client[ADDRESS_TEXT_MAX];
    if (connection->transport.deaf)
        return;
    counters_add(counter, 1);
    h2_transport_terminate(&connection->transport, NGHTTP2_ENHANCE_YOUR_CALM);
    if (!log_limit_pass(&limit, LOGGED_PER_S, &suppressed))
        return;
    address_format(&connection->base->stream.remote, client);
    log_warn("HTTP/2 connection of %s is closed: too many %s (%u more were not logged)", client,
             what, suppressed);
}

static enum counter counter_of(enum h2_event event)
{
    switch (event) {
    case H2_EVENT_RESET:
        return COUNTER_H2_CALMED_RESETS;
    case H2_EVENT_FAULT:
        return COUNTER_H2_CALMED_FAULTS;
    default:
        return COUNTER_H2_CALMED_CONTROL;
    }
}

void h2_frames_count(struct h2_connection *connection, enum h2_event event)
{
    const struct http_server *server = connection->base->server;
    const char *excess =
        h2_guard_count(&connection->guard, &server->config.h2_limits, event, io_now_ms(server->io));
    if (excess)
        h2_frames_calm(connection, counter_of(event), excess);
}

/* Does the frame carry nothing of a message? Each costs us about as much as one that does. */
static bool is_control(const struct h2_frame_head *head)
{
    switch (head->type) {
    case NGHTTP2_HEADERS:
        return head->length == 0;
    case NGHTTP2_DATA:
        return head->length == 0 && !(head->flags & NGHTTP2_FLAG_END_STREAM);
    case NGHTTP2_RST_STREAM:
        return false; /* counted as such */
    default:
        return true;
    }
}

/* PRIORITY means nothing any more (RFC 9113 section 5.3), yet it has a form, which nghttp2 does not
 * look at when priorities are off. */
static void check_priority(struct h2_connection *connection, const struct h2_frame_head *head)
{
    if (head->type != NGHTTP2_PRIORITY)
        return;
    if (head->stream_id && head->length != 5)
        h2_transport_terminate(&connection->transport, NGHTTP2_FRAME_SIZE_ERROR);
    else if (!head->stream_id || head->dependency == head->stream_id) /* RFC 7540 section 5.3.1 */
        h2_transport_terminate(&connection->transport, NGHTTP2_PROTOCOL_ERROR);
}

/* A frame of a message on a stream that the client has ended (RFC 9113 section 5.1). */
static void check_closed(struct h2_connection *connection, const struct h2_frame_head *head)
{
    struct h2_transport *transport = &connection->transport;
    bool message = head->type == NGHTTP2_DATA || head->type == NGHTTP2_HEADERS;
    if (!message || head->stream_id > connection->last_stream_id || !(head->stream_id & 1) ||
        nghttp2_session_find_stream(transport->session, head->stream_id))
        return;
    switch (h2_closed_find(&connection->closed, head->stream_id)) {
    case H2_CLOSED_BY_END:
        h2_transport_terminate(transport, NGHTTP2_STREAM_CLOSED);
        break;
    case H2_CLOSED_BY_PEER_RESET:
        nghttp2_submit_rst_stream(transport->session, NGHTTP2_FLAG_NONE, head->stream_id,
                                  NGHTTP2_STREAM_CLOSED);
        break;
    case H2_CLOSED_BY_OUR_RESET: /* it may not have heard yet */
    case H2_CLOSED_LONG_AGO:
        h2_frames_count(connection, H2_EVENT_CONTROL);
        break;
    case H2_CLOSED_NEVER_OPENED:
        h2_transport_terminate(transport, NGHTTP2_PROTOCOL_ERROR);
        break;
    }
}

void h2_frames_begun(struct h2_transport *transport, const struct h2_frame_head *head)
{
    struct h2_connection *connection = transport->owner;
    if (head->type == NGHTTP2_HEADERS || head->type == NGHTTP2_CONTINUATION)
        connection->head_open = !(head->flags & NGHTTP2_FLAG_END_HEADERS);
    if (is_control(head))
        h2_frames_count(connection, H2_EVENT_CONTROL);
    check_priority(connection, head);
    check_closed(connection, head);
}

void h2_frames_flooded(struct h2_transport *transport)
{
    h2_frames_calm(transport->owner, COUNTER_H2_CALMED_ANSWERS,
                   "frames that have to be answered, or pieces of a head");
}
