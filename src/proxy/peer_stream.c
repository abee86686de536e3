/* Plain streams to peers, for layer 4: bytes of whatever protocol, never pooled. */
#include "proxy/peer_internal.h"

#include <errno.h>
#include <stdlib.h>

struct peer_stream {
    struct stream stream;
    struct peer *peer; /* whose connection it is; NULL: it failed before it was one, or nobody's */
};

struct stream_opener {
    struct peer_opener opener; /* first */
    struct slice header;
    struct peer_stream *stream;
};

static void closed(struct stream *stream)
{
    struct peer_stream *self = container_of(stream, struct peer_stream, stream);
    if (self->peer) {
        self->peer->active--;
        peer_connection_closed(self->peer);
    }
    free(self);
}

/* As an exchange, until it closes. */
static void count(struct peer_stream *self, struct peer *peer)
{
    self->peer = peer;
    peer->active++;
}

static int open_stream(struct peer_opener *opener, struct peer *peer, const struct address *to,
                       int64_t deadline)
{
    struct stream_opener *self = (struct stream_opener *)opener;
    struct peer_stream *opened = calloc(1, sizeof(*opened));
    if (!opened)
        return -ENOMEM;
    int result = stream_connect(&opened->stream, peer->io, to, deadline);
    if (result < 0) {
        free(opened);
        return result;
    }
    opened->stream.on_closed = closed;
    result = client_tls_begin_behind(&opened->stream, self->header, &peer->tls, deadline);
    if (result < 0)
        stream_close(&opened->stream);
    else
        self->stream = opened;
    return result;
}

int peer_connect_stream(struct peer *peer, const struct upstream_config *config,
                        const struct peer_greeting *greeting, struct stream **out, int64_t deadline)
{
    struct stream_opener opener = {.opener.open = open_stream, .header = greeting->bytes};
    if (!peer_make_room(peer, config->connections_max))
        return -EAGAIN;
    peer_connection_begins(peer);
    int result = peer_connect(peer, &opener.opener, deadline);
    if (result < 0)
        return result;
    count(opener.stream, peer);
    stream_watch_peer(&opener.stream->stream, config->keepalive_ms, config->ack_timeout_ms);
    opener.stream->stream.send_stall_ms = config->send_timeout_ms;
    *out = &opener.stream->stream;
    return 0;
}

struct stream *peer_adopt_stream(struct io *io, int fd, const struct address *remote)
{
    struct peer_stream *self = calloc(1, sizeof(*self));
    struct peer *peer = peer_at(remote);
    if (!self)
        return NULL;
    stream_init(&self->stream, io, fd);
    self->stream.side = STREAM_OF_PEER;
    self->stream.on_closed = closed;
    self->stream.movable = true;
    self->stream.local_socket = remote->any.sa_family == AF_UNIX;
    self->stream.remote = *remote;
    if (peer) {
        peer_connection_begins(peer);
        count(self, peer);
    }
    return &self->stream;
}
