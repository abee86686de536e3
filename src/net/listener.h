/* Listening sockets. Never suspends. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "net/address.h"

/* What the address of a UDP listener begins with: "udp:127.0.0.1:53". */
extern const struct slice listener_udp_prefix;

/* Parses an address to listen on, *datagrams telling whether it has that prefix. Returns 0, or
 * -EINVAL with *why as address_parse. */
int listener_parse(struct slice text, struct address *address, bool *datagrams, const char **why);

/*
 * Opens `count` sockets that listen on one address, for streams or for datagrams: internet
 * addresses get one each (SO_REUSEPORT), a local one is opened once and duplicated. Port 0 is
 * replaced by the port that the kernel chose. An address that anybody listens on already, this
 * program included, is refused. Returns 0, or a negative errno with *why (static text); then
 * nothing is left open.
 */
int listener_open(struct address *address, bool datagrams, int *fds, unsigned count,
                  const char **why);

/*
 * Adds to `have` open sockets of an address further ones, up to `count`. Returns as listener_open;
 * those that were open stay so.
 */
int listener_extend(const struct address *address, bool datagrams, int *fds, unsigned have,
                    unsigned count, const char **why);

/*
 * From now on the kernel queues nobody on them: a segment that asks for a connection is dropped
 * (its sender asks again a second later and is refused, if they are closed by then), a local
 * socket's file is removed. What is queued can be accepted, and then nobody loses anything when the
 * sockets are closed, whoever holds a duplicate last; without this, connections that came in
 * between would be reset. UDP sockets stay as they are: their flows go on, and workers begin no new
 * ones.
 */
void listener_quiesce(const struct address *address, bool datagrams, const int *fds,
                      unsigned count);

/* Closes them once they are quiet. */
void listener_close(const int *fds, unsigned count);

#endif
