/*
 * Judges the frames of a client as such, before the session sees them: what they cost us against
 * what they bring, and streams that are closed. Never suspends; for callbacks.
 */
#ifndef HTTP_H2_FRAMES_H
#define HTTP_H2_FRAMES_H

#include "base/counters.h"
#include "http/h2_connection.h"

/* Counts an event with the guard; a connection that is over its budget is terminated. */
void h2_frames_count(struct h2_connection *connection, enum h2_event event);

/* Terminates a connection with ENHANCE_YOUR_CALM, counts that, and tells the log what there was too
 * much of. */
void h2_frames_calm(struct h2_connection *connection, enum counter counter, const char *what);

/* For the transport's ops. */
void h2_frames_begun(struct h2_transport *transport, const struct h2_frame_head *head);
void h2_frames_flooded(struct h2_transport *transport);

#endif
