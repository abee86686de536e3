/*
 * Bytes that pass from one stream to another through a pipe, so that they never enter the process:
 * for coroutines that have much to pass on and nothing to look at. Tunnels, which have no
 * coroutine, do the same in tunnel_splice.c. Both streams must be without a filter. Suspends.
 *
 *   stream_splice_in ──▶ a pipe with bytes ──▶ stream_splice_out
 */
#ifndef NET_STREAM_SPLICE_H
#define NET_STREAM_SPLICE_H

#include "io/pipe.h"
#include "net/stream.h"

#include <stdint.h>

/* Waits for bytes of a stream and takes at most `bytes_max` of them into a pipe, which is then the
 * caller's. From then on the stream receives nothing by itself until stream_resume. Returns how
 * many; 0: what comes next, bytes or the end, is to be had from the stream as ever, for now;
 * -EOPNOTSUPP: so is all else; -ETIMEDOUT or -ECANCELED. */
int stream_splice_in(struct stream *stream, uint64_t bytes_max, struct io_pipe **pipe,
                     int64_t deadline);

/* Sends all that the pipe holds, and gives it back in any case. Returns as stream_send. */
int stream_splice_out(struct stream *stream, struct io_pipe *pipe, int64_t deadline);

#endif
