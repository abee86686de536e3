#include "server/control.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct wire {
    uint32_t kind;
    uint32_t text_len;
    uint64_t value;
};

int control_pair(int sockets[2])
{
    int result = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets);
    return result == 0 ? 0 : -errno;
}

int control_send(int socket, enum control_kind kind, uint64_t value, const char *text, int fd)
{
    size_t len = text ? strnlen(text, CONTROL_TEXT_MAX - 1) : 0;
    struct wire wire = {.kind = kind, .text_len = (uint32_t)len, .value = value};
    struct iovec iov[2] = {{&wire, sizeof(wire)}, {(void *)text, len}};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    if (fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    ssize_t sent;
    do
        sent = sendmsg(socket, &msg, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

void control_send_all(int socket, enum control_kind kind, uint64_t value, const char *text)
{
    struct pollfd writable = {.fd = socket, .events = POLLOUT};
    while (control_send(socket, kind, value, text, -1) == -EAGAIN)
        poll(&writable, 1, -1);
}

static int passed_fd(struct msghdr *msg)
{
    int fd = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(msg);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

int control_receive(int socket, struct control_message *message)
{
    struct wire wire;
    struct iovec iov[2] = {{&wire, sizeof(wire)}, {message->text, CONTROL_TEXT_MAX - 1}};
    char control[CMSG_SPACE(sizeof(int))];
    struct msghdr msg = {
        .msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t got;
    do
        got = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got == 0 ? 0 : -errno;
    if ((size_t)got < sizeof(wire))
        return -EPROTO;
    message->kind = (enum control_kind)wire.kind;
    message->value = wire.value;
    message->text[(size_t)got - sizeof(wire)] = '\0';
    message->fd = passed_fd(&msg);
    return 1;
}
