/*
 * The sockets over which tunnels move from the workers of one program to those of the next.
 *
 *   old workers ──offers──▶ one socket that all new workers read; each offer goes to one of them
 *   an old one ◀──answers──▶ a new one, over a channel of its own that comes with the offer
 *
 * An offer is a message of net/tunnel_state.h with three or four descriptors: the client, the peer,
 * the channel, and, if bytes are on their way, a file that holds them. Never suspends.
 */
#ifndef SERVER_TUNNEL_SOCKET_H
#define SERVER_TUNNEL_SOCKET_H

#include "base/slice.h"

#include <stdint.h>

enum { OFFER_FDS = 3, OFFER_FDS_MAX = 4 };

/* What is said on a channel, a byte each. The end of a channel says that the other side has given
 * up, or is gone: then the old process keeps the tunnel. */
enum {
    TUNNEL_TAKEN = 'T', /* by the new one: all that it takes to go on is there */
    TUNNEL_YOURS = 'Y', /* by the old one: so do */
};

struct offer_fds {
    int client;
    int peer;
    int channel;
    int pending; /* -1: no bytes are on their way */
};

/* Makes a pair of sockets that keep bounds of messages: non-blocking, close-on-exec. Returns 0 or a
 * negative errno. */
int tunnel_socket_pair(int sockets[2]);

/* Sends an offer; the descriptors stay the caller's. Returns 0 or a negative errno. */
int tunnel_socket_offer(int socket, struct slice message, const struct offer_fds *fds);

/* Receives one into `bytes`; the descriptors become the caller's. Returns its length, 0 at the end,
 * or a negative errno: -EAGAIN if none is there, -EPROTO if what was there is none. */
int tunnel_socket_receive(int socket, char *bytes, size_t size, struct offer_fds *fds);

/* Closes those of them that are there. */
void offer_fds_close(struct offer_fds *fds);

/* Says something on a channel. Returns 0 or a negative errno. */
int tunnel_socket_say(int channel, char word);

/* What was said: a byte, 0 at the end, or a negative errno (-EAGAIN: nothing was yet). */
int tunnel_socket_hear(int channel);

#endif
