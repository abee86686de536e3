/*
 * What a program leaves to the new one that is to take its place (supervisor_upgrade.c): the
 * listening sockets and the secret of TLS tickets. The old one writes it down in memory that the
 * new one finds by a variable of the environment; the descriptors stay open across exec.
 */
#ifndef SERVER_INHERIT_H
#define SERVER_INHERIT_H

#include "net/address.h"
#include "server/bounds.h"

#include <stdbool.h>

/* In the old program: writes it down. Returns a descriptor or a negative errno. */
int inherit_write(const struct bounds *bounds);

/* In the old program, between fork and exec: leaves these descriptors and the sockets open, and
 * tells the new one where to look. Tunnels come over the last (tunnel_socket.h). */
void inherit_leave(const struct bounds *bounds, int written, int control, int tunnels);

/* In the new program: takes what was left, if anything was. False, logged, if it is no use. */
bool inherit_read(void);

/* Moves the sockets of a listener with that key to `fds`, at most `max`, fills its address, and
 * tells whether they are the service manager's. Returns how many; 0: there are none. */
unsigned inherit_take(const char *key, struct address *address, int *fds, unsigned max, bool *lent);

/* Closes the sockets that were not taken: the old program sees to those who are queued there. */
void inherit_drop_rest(void);

/* The socket to the old program (control.h), or -1: there is none, or it has been told. */
int inherit_control(void);

/* The socket on which the old program's workers offer their tunnels, or -1. */
int inherit_tunnels(void);

/* The workers have it: closes it here. */
void inherit_drop_tunnels(void);

/* Tells the old program that this one serves, and which of its sockets. */
void inherit_tell_ready(const struct bounds *bounds);

#endif
