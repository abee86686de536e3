/*
 * Pipes through which the kernel hands bytes on from one socket to another without copying them
 * (splice(2)). A worker has a few: whoever has bytes on their way borrows one and gives it back
 * empty, so that nobody who waits for bytes holds any. Nothing here suspends, nor blocks as long as
 * the sockets are non-blocking.
 *
 *   io_pipe_take ──▶ io_pipe_fill ──▶ io_pipe_drain ... ──▶ io_pipe_release
 */
#ifndef IO_PIPE_H
#define IO_PIPE_H

#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct io_pipe {
    int in;               /* descriptor to write to */
    int out;              /* to read from */
    uint32_t bytes;       /* what it holds */
    uint32_t bytes_max;   /* what it may hold */
    struct io_pipe *next; /* in the pool */
};

/* An empty pipe, or NULL: all are in use, or descriptors or the kernel's memory for pipes have run
 * out. Then bytes are to be copied. */
struct io_pipe *io_pipe_take(struct io *io);

/* Would io_pipe_take find one, as far as is known? */
bool io_pipe_any(const struct io *io);

/* Gives it back. One that still holds bytes is closed: nobody else shall get these. */
void io_pipe_release(struct io *io, struct io_pipe *pipe);

/* Moves what a socket has received, at most `bytes_max`, into an empty pipe. Returns the number of
 * bytes or a negative errno; 0: none are to be had in this way, and only a receive can tell why. It
 * may be the end, or a reset of which a send was told, or urgent data, which it cannot pass. */
int io_pipe_fill(struct io_pipe *pipe, int socket, uint64_t bytes_max);

/* Moves what a pipe holds to a socket, as far as that takes it. Returns the number of bytes or a
 * negative errno: -EAGAIN if the socket takes none. */
int io_pipe_drain(struct io_pipe *pipe, int socket);

/* Copies the first bytes out of a pipe that is not empty. Returns how many, or a negative errno. */
int io_pipe_read(struct io_pipe *pipe, void *bytes, uint32_t len);

#endif
