#include "proxy/file_body.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/exchange.h"
#include "io/wait.h"

enum { PIECE_MAX_BYTES = 65536 };

struct file_body {
    int fd; /* -1 when closed */
    struct io *io;
    uint64_t offset;
    uint64_t left;
    char *buffer;
    size_t buffer_size;
};

static void close_file(void *arg)
{
    struct file_body *file = arg;
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

/* What the page cache has is read at once; the disk is waited for. */
static ssize_t read_piece(struct file_body *file, size_t len, int64_t deadline)
{
    struct iovec iov = {file->buffer, len};
    ssize_t count = preadv2(file->fd, &iov, 1, (off_t)file->offset, RWF_NOWAIT);
    if (count > 0)
        return count;
    if (deadline == DEADLINE_NOW)
        return -ETIMEDOUT;
    struct io_op op = {
        .kind = IO_OP_READ, .fd = file->fd, .read = {file->buffer, len, (int64_t)file->offset}};
    return wait_op(file->io, &op, deadline);
}

static int file_read(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct file_body *file = body->source;
    (void)max;
    if (!file->left) {
        body->ended = true;
        return 0;
    }
    if (file->fd < 0)
        return -ECONNRESET;
    size_t len = file->left < file->buffer_size ? (size_t)file->left : file->buffer_size;
    ssize_t count = read_piece(file, len, deadline);
    if (count == -ETIMEDOUT || count == -ECANCELED)
        return (int)count;
    if (count <= 0) { /* the file has been cut meanwhile, or the disk fails */
        close_file(file);
        return -ECONNRESET;
    }
    file->offset += (uint64_t)count;
    file->left -= (uint64_t)count;
    body->ended = !file->left;
    *out = slice_of(file->buffer, (size_t)count);
    return 1;
}

static void file_release(struct body *body)
{
    close_file(body->source);
}

static const struct body_ops file_ops = {.read = file_read, .release = file_release};

int file_body_init(struct response *response, int fd, uint64_t offset, uint64_t count)
{
    struct arena *arena = response->arena;
    size_t size = count < PIECE_MAX_BYTES ? (size_t)count : PIECE_MAX_BYTES;
    struct file_body *file = arena_alloc(arena, sizeof(*file));
    char *buffer = arena_alloc(arena, size);
    if (!file || !buffer || arena_defer(arena, close_file, file) != 0) {
        close(fd);
        return -ENOMEM;
    }
    *file = (struct file_body){
        .fd = fd,
        .io = response->request->exchange->io,
        .offset = offset,
        .left = count,
        .buffer = buffer,
        .buffer_size = size,
    };
    response->body = (struct body){.ops = &file_ops, .source = file, .length = (int64_t)count};
    return 0;
}
