/* Listening sockets. Never suspends. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "net/address.h"

/*
 * Opens `count` sockets that listen on one address: internet addresses get one each (SO_REUSEPORT),
 * a local one is opened once and duplicated. Port 0 is replaced by the port that the kernel chose.
 * An address that anybody listens on already, this program included, is refused. Returns 0, or a
 * negative errno with *why (static text); then nothing is left open.
 */
int listener_open(struct address *address, int *fds, unsigned count, const char **why);

/* Closes them; a local socket's file is removed. */
void listener_close(const struct address *address, int *fds, unsigned count);

#endif
