#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct output output_standard = {.fd = STDOUT_FILENO};
struct output output_error = {.fd = STDERR_FILENO};

struct output output_of(int fd)
{
    struct output output = {.fd = fd};
    struct stat status;
    if (fstat(fd, &status) != 0)
        return output;
    if (S_ISSOCK(status.st_mode))
        output.kind = OUTPUT_SOCKET;
    else if ((S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) &&
             !(fcntl(fd, F_GETFL) & O_NONBLOCK))
        output.kind = OUTPUT_SHARED;
    return output;
}

/* Of a pipe or a terminal a description of our own is opened, for others may not expect theirs to
 * be non-blocking. A file has one position for all who write to it, and a socket cannot be opened.
 */
static void open_own(struct output *output, const char *path)
{
    *output = output_of(output->fd);
    if (output->kind != OUTPUT_SHARED)
        return;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        *output = output_of(fd);
}

void output_open_standards(void)
{
    open_own(&output_standard, "/proc/self/fd/1");
    open_own(&output_error, "/proc/self/fd/2");
}

int output_duplicate(const struct output *output)
{
    int fd = fcntl(output->fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return fd < 0 ? -errno : fd;
}

/* Kernels before Linux 6.4 cannot write to a pipe without waiting: they are asked first, and
 * between that and the write another process may take the room. */
static ssize_t write_shared(int fd, const void *bytes, size_t len)
{
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = len};
    ssize_t count = pwritev2(fd, &piece, 1, -1, RWF_NOWAIT);
    if (count >= 0 || errno == EAGAIN || errno == EINTR || errno == EPIPE)
        return count;
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    if (poll(&room, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, bytes, len < PIPE_BUF ? len : PIPE_BUF);
}

ssize_t output_write(const struct output *output, const void *bytes, size_t len)
{
    ssize_t count;
    do {
        if (output->kind == OUTPUT_SOCKET)
            count = send(output->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        else if (output->kind == OUTPUT_SHARED)
            count = write_shared(output->fd, bytes, len);
        else
            count = write(output->fd, bytes, len);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}
