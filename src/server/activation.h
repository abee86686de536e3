/*
 * Listening sockets that a service manager has opened for the program (sd_listen_fds(3)). They stay
 * the manager's: it keeps them open while the program is away, and gives them to the next one.
 */
#ifndef SERVER_ACTIVATION_H
#define SERVER_ACTIVATION_H

#include "net/address.h"

/* Takes note of what the environment tells of, and takes it out of there. */
void activation_read(void);

/* The socket for streams that listens on exactly that address, or -1. Not the caller's to close. */
int activation_find(const struct address *address);

/* Warns of those that nobody has asked for yet. */
void activation_warn_unused(void);

#endif
