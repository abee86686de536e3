#include "io/pipe.h"

#include "base/log.h"
#include "io/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PIPE_BYTES = 512 << 10, /* unless the options say otherwise: see docs/design.md */
    PIPES_MAX = 64,         /* of one worker */
    PIPES_KEEP = 16,        /* empty ones that the pool keeps */
    RETRY_MS = 1000,        /* after that none was to be had */
};

static struct io_pipe *pop(struct pipepool *pool);
static int open_pipe(struct io_pipe **pipe, uint32_t bytes);
static void close_pipe(struct pipepool *pool, struct io_pipe *pipe);

void pipepool_init(struct pipepool *pool, uint32_t pipe_bytes)
{
    *pool = (struct pipepool){.pipe_bytes = pipe_bytes ? pipe_bytes : PIPE_BYTES};
}

void pipepool_fini(struct pipepool *pool)
{
    assert(pool->free_count == pool->count);
    while (pool->free)
        close_pipe(pool, pop(pool));
}

bool pipepool_trim(struct pipepool *pool)
{
    bool any = pool->free_floor > 0;
    for (uint32_t unused = pool->free_floor; unused; unused--)
        close_pipe(pool, pop(pool));
    pool->free_floor = pool->free_count;
    return any;
}

bool io_pipe_any(const struct io *io)
{
    const struct pipepool *pool = &io->pipes;
    return pool->free || (pool->count < PIPES_MAX && io->now_ms >= pool->retry_ms);
}

struct io_pipe *io_pipe_take(struct io *io)
{
    struct pipepool *pool = &io->pipes;
    struct io_pipe *pipe = NULL;
    if (pool->free)
        return pop(pool);
    if (!io_pipe_any(io))
        return NULL;
    int result = open_pipe(&pipe, pool->pipe_bytes);
    if (result == 0) {
        pool->count++;
        pool->lacking = false;
        return pipe;
    }
    if (!pool->lacking)
        log_warn("no pipe to be had: %s; tunnels copy their bytes meanwhile, which costs more",
                 result == -EPERM ? "the user's share of pipe memory is used up "
                                    "(sysctl fs.pipe-user-pages-soft, fs.pipe-max-size)"
                                  : strerror(-result));
    pool->lacking = true;
    pool->retry_ms = io->now_ms + RETRY_MS;
    return NULL;
}

void io_pipe_release(struct io *io, struct io_pipe *pipe)
{
    struct pipepool *pool = &io->pipes;
    if (pipe->bytes || pool->free_count >= PIPES_KEEP) {
        close_pipe(pool, pipe);
        return;
    }
    pipe->next = pool->free;
    pool->free = pipe;
    pool->free_count++;
}

int io_pipe_fill(struct io_pipe *pipe, int socket, uint64_t bytes_max)
{
    assert(pipe->bytes == 0);
    size_t room = bytes_max < pipe->bytes_max ? bytes_max : pipe->bytes_max;
    ssize_t count;
    do
        count = splice(socket, NULL, pipe->in, NULL, room, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return errno == EAGAIN ? 0 : -errno;
    pipe->bytes = (uint32_t)count;
    return (int)count;
}

int io_pipe_drain(struct io_pipe *pipe, int socket)
{
    assert(pipe->bytes);
    ssize_t count;
    do
        count =
            splice(pipe->out, NULL, socket, NULL, pipe->bytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return -errno;
    pipe->bytes -= (uint32_t)count;
    return (int)count;
}

int io_pipe_read(struct io_pipe *pipe, void *bytes, uint32_t len)
{
    assert(pipe->bytes);
    ssize_t count;
    do
        count = read(pipe->out, bytes, len < pipe->bytes ? len : pipe->bytes);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return -errno;
    pipe->bytes -= (uint32_t)count;
    return (int)count;
}

static struct io_pipe *pop(struct pipepool *pool)
{
    struct io_pipe *pipe = pool->free;
    pool->free = pipe->next;
    pool->free_count--;
    if (pool->free_count < pool->free_floor)
        pool->free_floor = pool->free_count;
    return pipe;
}

/* The kernel gives users who have many pipes only small ones, which cost more than copying. Returns
 * 0 or a negative errno. */
static int open_pipe(struct io_pipe **pipe, uint32_t bytes)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    struct io_pipe *opened = malloc(sizeof(*opened));
    int result = !opened ? -ENOMEM : fcntl(ends[1], F_SETPIPE_SZ, bytes) < 0 ? -errno : 0;
    if (result < 0) {
        free(opened);
        close(ends[0]);
        close(ends[1]);
        return result;
    }
    *opened = (struct io_pipe){.in = ends[1], .out = ends[0], .bytes_max = bytes};
    *pipe = opened;
    return 0;
}

static void close_pipe(struct pipepool *pool, struct io_pipe *pipe)
{
    close(pipe->in);
    close(pipe->out);
    free(pipe);
    pool->count--;
}
