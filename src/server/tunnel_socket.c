#include "server/tunnel_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FDS_MAX = 16 }; /* what is received at most, to be closed if it is not what we expect */

union space {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

int tunnel_socket_pair(int sockets[2])
{
    int result = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets);
    return result == 0 ? 0 : -errno;
}

int tunnel_socket_offer(int socket, struct slice message, const struct offer_fds *fds)
{
    union space space = {.bytes = {0}};
    const int list[OFFER_FDS_MAX] = {fds->client, fds->peer, fds->channel, fds->pending};
    size_t bytes = sizeof(int) * (fds->pending < 0 ? OFFER_FDS : OFFER_FDS_MAX);
    struct iovec iov = {(void *)message.ptr, message.len};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &space,
                         .msg_controllen = CMSG_SPACE(bytes)};
    space.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(bytes), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&space.header), list, bytes);
    ssize_t sent;
    do
        sent = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* Returns how many descriptors came. */
static unsigned collect(struct msghdr *msg, int fds[FDS_MAX])
{
    unsigned count = 0;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(msg); at; at = CMSG_NXTHDR(msg, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = at->cmsg_len - CMSG_LEN(0);
        for (size_t i = 0; i < bytes / sizeof(int) && count < FDS_MAX; i++)
            memcpy(&fds[count++], CMSG_DATA(at) + i * sizeof(int), sizeof(int));
    }
    return count;
}

static bool is_socket(int fd, int type)
{
    int found;
    socklen_t len = sizeof(found);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &found, &len) == 0 && found == type;
}

static bool is_file(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static bool make_sense(const struct offer_fds *fds)
{
    return is_socket(fds->client, SOCK_STREAM) && is_socket(fds->peer, SOCK_STREAM) &&
           is_socket(fds->channel, SOCK_SEQPACKET) && (fds->pending < 0 || is_file(fds->pending));
}

int tunnel_socket_receive(int socket, char *bytes, size_t size, struct offer_fds *fds)
{
    union space space;
    int list[FDS_MAX];
    struct iovec iov = {bytes, size};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
    ssize_t got;
    do
        got = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    *fds = (struct offer_fds){-1, -1, -1, -1};
    if (got < 0)
        return -errno;
    unsigned count = collect(&msg, list);
    if (got == 0 && !count)
        return 0;
    if (count == OFFER_FDS || count == OFFER_FDS_MAX) {
        *fds = (struct offer_fds){list[0], list[1], list[2], count > OFFER_FDS ? list[3] : -1};
        if (got > 0 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && make_sense(fds))
            return (int)got;
        offer_fds_close(fds);
        return -EPROTO;
    }
    for (unsigned i = 0; i < count; i++)
        close(list[i]);
    return -EPROTO;
}

void offer_fds_close(struct offer_fds *fds)
{
    const int list[OFFER_FDS_MAX] = {fds->client, fds->peer, fds->channel, fds->pending};
    for (unsigned i = 0; i < OFFER_FDS_MAX; i++)
        if (list[i] >= 0)
            close(list[i]);
    *fds = (struct offer_fds){-1, -1, -1, -1};
}

int tunnel_socket_say(int channel, char word)
{
    ssize_t sent;
    do
        sent = send(channel, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int tunnel_socket_hear(int channel)
{
    char word;
    ssize_t got;
    do
        got = recv(channel, &word, 1, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got == 0 ? 0 : (unsigned char)word;
}
