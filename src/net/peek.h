/*
 * Looking at what a stream has received without taking it: it stays queued for whoever reads the
 * stream next. At most a receive buffer's worth can be looked at.
 */
#ifndef NET_PEEK_H
#define NET_PEEK_H

#include "base/slice.h"
#include "net/stream.h"

/* Waits until more is queued than there is now. Returns 1, 0 at the end of the stream, -ENOBUFS
 * when no more can be queued, or another negative errno. */
int peek_wait(struct stream *stream, int64_t deadline);

/* How much is queued. */
size_t peek_len(const struct stream *stream);

/* The first piece of what is queued behind the first `offset` bytes; empty if there is none. */
struct slice peek_at(const struct stream *stream, size_t offset);

/* Copies up to `size` of the first bytes; returns their number. */
size_t peek_copy(const struct stream *stream, char *bytes, size_t size);

#endif
