/* Sockets of datagrams to peers; see peer.h. */
#include "net/udp.h"
#include "proxy/peer_internal.h"

#include <errno.h>

struct socket_opener {
    struct peer_opener opener; /* first */
    struct address to;
    int fd;
};

static int open_socket(struct peer_opener *opener, struct peer *peer, const struct address *to,
                       int64_t deadline)
{
    struct socket_opener *self = (struct socket_opener *)opener;
    (void)peer;
    (void)deadline;
    self->to = *to;
    self->fd = udp_connect(to);
    return self->fd < 0 ? self->fd : 0;
}

int peer_connect_datagrams(struct peer *peer, const struct upstream_config *config,
                           struct address *to, int64_t deadline)
{
    struct socket_opener opener = {.opener.open = open_socket};
    if (!peer_make_room(peer, config->connections_max))
        return -EAGAIN;
    peer_connection_begins(peer);
    int result = peer_connect(peer, &opener.opener, deadline);
    if (result < 0)
        return result;
    peer->active++;
    *to = opener.to;
    return opener.fd;
}

void peer_datagrams_over(struct peer *peer)
{
    peer->active--;
    peer_connection_closed(peer);
}
