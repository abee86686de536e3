/*
 * What a worker is told (control.h), in order, even while it does not read: messages that its
 * socket does not take wait here. Bounded; owns the descriptors that wait. Never suspends.
 */
#ifndef SERVER_CONTROL_QUEUE_H
#define SERVER_CONTROL_QUEUE_H

#include "server/control.h"

#include <stdbool.h>

struct control_queue {
    struct queued_message *first; /* owned, as those behind it */
    struct queued_message *last;
    unsigned count;
};

/* As control_send, or queues the message, with a duplicate of the descriptor. Returns 0 or a
 * negative errno: then the worker has missed something and must not go on; -ENOBUFS: too many wait.
 */
int control_queue_send(struct control_queue *queue, int socket, enum control_kind kind,
                       uint64_t value, const char *text, int fd);

/* Is the socket to be written to when it can be? */
bool control_queue_waits(const struct control_queue *queue);

/* Sends what the socket takes now. Returns as control_queue_send. */
int control_queue_flush(struct control_queue *queue, int socket);

/* Forgets what waits. */
void control_queue_clear(struct control_queue *queue);

#endif
