#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 65535 }; /* the kernel cuts it to net.core.somaxconn */

const struct slice listener_udp_prefix = SLICE_INIT("udp:");

int listener_parse(struct slice text, struct address *address, bool *datagrams, const char **why)
{
    *datagrams = slice_starts_with(text, listener_udp_prefix);
    if (!*datagrams)
        return address_parse(text, address, why);
    int result = address_parse(
        slice_of(text.ptr + listener_udp_prefix.len, text.len - listener_udp_prefix.len), address,
        why);
    if (result == 0 && address->any.sa_family == AF_UNIX) {
        *why = "is no internet address, which UDP needs";
        return -EINVAL;
    }
    return result;
}

static int set(int fd, int level, int option)
{
    int on = 1;
    return setsockopt(fd, level, option, &on, sizeof(on));
}

static int open_socket(const struct address *address, bool datagrams, bool shared)
{
    int type = datagrams ? SOCK_DGRAM : SOCK_STREAM;
    int fd = socket(address->any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int result = 0;
    /* With UDP it would mean that others who ask for it may share the port. */
    if (address->any.sa_family != AF_UNIX && !datagrams)
        result |= set(fd, SOL_SOCKET, SO_REUSEADDR);
    if (address->any.sa_family == AF_INET6)
        result |= set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    if (shared)
        result |= set(fd, SOL_SOCKET, SO_REUSEPORT);
    if (result != 0 || bind(fd, &address->any, address->len) != 0) {
        result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

/* Sockets with SO_REUSEPORT would silently share the port with another instance of ours: a socket
 * without it finds out. It also settles port 0. */
static int claim(struct address *address, bool datagrams)
{
    int fd = open_socket(address, datagrams, false);
    if (fd < 0)
        return fd;
    socklen_t len = sizeof(address->v6);
    int result = getsockname(fd, &address->any, &len) == 0 ? 0 : -errno;
    close(fd);
    return result;
}

static int open_listening(const struct address *address, bool datagrams)
{
    int fd = open_socket(address, datagrams, true);
    if (fd < 0 || datagrams || listen(fd, BACKLOG) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

static int open_shared(struct address *address, bool datagrams, int *fds, unsigned count)
{
    int result = claim(address, datagrams);
    for (unsigned i = 0; i < count && result >= 0; i++)
        result = fds[i] = open_listening(address, datagrams);
    return result < 0 ? result : 0;
}

static int duplicate(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

/* Does anybody listen on that local socket? */
static bool alive(const struct address *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    bool refused = connect(fd, &address->any, address->len) != 0 && errno == ECONNREFUSED;
    close(fd);
    return !refused;
}

static int open_local(struct address *address, int *fds, unsigned count)
{
    int fd = open_socket(address, false, false);
    if (fd == -EADDRINUSE && address->local.sun_path[0] && !alive(address)) {
        unlink(address->local.sun_path); /* left behind by a process that died */
        fd = open_socket(address, false, false);
    }
    if (fd < 0)
        return fd;
    fds[0] = fd;
    if (listen(fd, BACKLOG) != 0)
        return -errno;
    for (unsigned i = 1; i < count; i++) {
        fds[i] = duplicate(fd);
        if (fds[i] < 0)
            return fds[i];
    }
    return 0;
}

int listener_open(struct address *address, bool datagrams, int *fds, unsigned count,
                  const char **why)
{
    for (unsigned i = 0; i < count; i++)
        fds[i] = -1;
    int result = address->any.sa_family == AF_UNIX ? open_local(address, fds, count)
                                                   : open_shared(address, datagrams, fds, count);
    if (result == 0)
        return 0;
    for (unsigned i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    *why = strerror(-result);
    return result;
}

int listener_extend(const struct address *address, bool datagrams, int *fds, unsigned have,
                    unsigned count, const char **why)
{
    for (unsigned i = have; i < count; i++) {
        fds[i] = address->any.sa_family == AF_UNIX ? duplicate(fds[0])
                                                   : open_listening(address, datagrams);
        if (fds[i] >= 0)
            continue;
        int result = fds[i];
        *why = strerror(-result);
        listener_close(fds + have, i - have);
        return result;
    }
    return 0;
}

void listener_quiesce(const struct address *address, bool datagrams, const int *fds, unsigned count)
{
    enum { FLAGS_AT = 13, FLAG_SYN = 0x02, DROP = 0 };
    struct sock_filter unless_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_AT), /* of the TCP header (RFC 9293, 3.1) */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, FLAG_SYN, 0, 1), BPF_STMT(BPF_RET | BPF_K, DROP),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX), /* bytes to keep */
    };
    const struct sock_fprog program = {sizeof(unless_syn) / sizeof(unless_syn[0]), unless_syn};
    if (datagrams)
        return;
    if (address->any.sa_family == AF_UNIX) {
        if (address->local.sun_path[0])
            unlink(address->local.sun_path);
        return;
    }
    /* Where the kernel refuses, what comes until the sockets are closed is reset as ever. */
    for (unsigned i = 0; i < count; i++)
        setsockopt(fds[i], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

void listener_close(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}
