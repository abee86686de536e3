/*
 * The idle connections of a worker's clients, in the order in which they became idle: where
 * descriptors or places run out while others wait, the longest idle ones are closed, as if their
 * time were over. Owns nothing. Never suspends.
 */
#ifndef HTTP_IDLE_H
#define HTTP_IDLE_H

#include <stdint.h>

struct connection;
struct http_server;

/* The connection has nothing to do from now on. Its idle timer waits for its end. */
void idle_begin(struct connection *connection);

/* It has, or it closes; harmless on one that is not idle. */
void idle_end(struct connection *connection);

/* Closes at most so many that a listener has accepted (NULL: any), the longest idle ones first, but
 * none that became idle just now. Returns how many; they are gone some turns later. */
unsigned idle_shed(const struct http_server *listener, unsigned count);

#endif
