#include "net/tunnel_internal.h"

#include <errno.h>
#include <stdlib.h>

enum { LARGE_BYTES = 32 << 10 }; /* a piece from which on splicing costs less than copying */

static void release(struct direction *direction, struct tunnel_send *send)
{
    while (send->held) {
        struct io_buf *buf = send->held;
        send->held = buf->next;
        io_buf_release(direction->tunnel->io, buf);
    }
    free(send);
}

static void sent(struct stream_write *write, int result)
{
    struct direction *direction = write->owner;
    struct tunnel *tunnel = direction->tunnel;
    struct tunnel_send *send = direction->send;
    direction->send = NULL;
    direction->bytes += write->sent;
    if (result == -ECANCELED && tunnel->freeze) {
        tunnel_take_back(direction, send);
        result = 0;
    }
    release(direction, send);
    if (tunnel_ending(tunnel))
        return;
    tunnel_moved(tunnel);
    if (result < 0)
        tunnel_fail(direction, direction->to, result);
    else if (tunnel->freeze)
        tunnel_settle(tunnel);
    else if (direction->splice)
        tunnel_splice_sent(direction);
    else
        tunnel_pump(direction);
}

static int start(struct direction *direction, struct tunnel_send *send, unsigned count)
{
    send->write =
        (struct stream_write){.iov = send->iov, .count = count, .done = sent, .owner = direction};
    int result = stream_write_start(direction->to, &send->write);
    if (result == 0)
        direction->send = send;
    else
        release(direction, send);
    return result;
}

/* Takes what is queued; returns the number of bytes. */
static uint32_t gather(struct stream *from, struct tunnel_send *send, unsigned *count)
{
    uint32_t bytes = 0;
    struct io_buf **tail = &send->held;
    while (*count < TUNNEL_PIECES_MAX && from->first) {
        struct io_buf *buf = stream_take(from);
        send->iov[(*count)++] = (struct iovec){buf->data, buf->len};
        bytes += buf->len;
        *tail = buf;
        tail = &buf->next;
    }
    *tail = NULL;
    return bytes;
}

int tunnel_copy(struct direction *direction)
{
    unsigned count = 0;
    if (!direction->from->first)
        return 0;
    struct tunnel_send *send = malloc(sizeof(*send));
    if (!send)
        return -ENOMEM;
    uint32_t bytes = gather(direction->from, send, &count);
    direction->streak_bytes = bytes >= LARGE_BYTES ? direction->streak_bytes + bytes : 0;
    int result = start(direction, send, count);
    return result < 0 ? result : 1;
}

int tunnel_copy_bytes(struct direction *direction, const void *bytes, uint32_t len)
{
    struct tunnel_send *send = malloc(sizeof(*send));
    if (!send)
        return -ENOMEM;
    send->held = io_buf_copy(bytes, len);
    if (!send->held) {
        free(send);
        return -ENOMEM;
    }
    send->iov[0] = (struct iovec){send->held->data, len};
    return start(direction, send, 1);
}
