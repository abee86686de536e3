#include "net/udp.h"

#include <errno.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(struct udp_end) <= UDP_NAME_ROOM, "an end fits");
_Static_assert(CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)) <= UDP_CONTROL_ROOM,
               "a destination and a segment size fit");

bool udp_end_read(struct udp_end *end, const struct sockaddr *address, socklen_t len)
{
    *end = (struct udp_end){0};
    if (len >= sizeof(end->v4) && address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        end->v4.sin_family = AF_INET;
        end->v4.sin_port = v4->sin_port;
        end->v4.sin_addr = v4->sin_addr;
        return true;
    }
    if (len < sizeof(end->v6) || address->sa_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    end->v6.sin6_family = AF_INET6;
    end->v6.sin6_port = v6->sin6_port;
    end->v6.sin6_addr = v6->sin6_addr;
    end->v6.sin6_scope_id = v6->sin6_scope_id;
    return true;
}

void udp_end_from_address(struct udp_end *end, const struct address *address)
{
    udp_end_read(end, &address->any, address->len);
}

void udp_end_to_address(const struct udp_end *end, struct address *address)
{
    *address = (struct address){.len = udp_end_bytes(end)};
    memcpy(&address->any, &end->any, address->len);
}

socklen_t udp_end_bytes(const struct udp_end *end)
{
    return end->any.sa_family == AF_INET6 ? sizeof(end->v6) : sizeof(end->v4);
}

bool udp_end_any(const struct udp_end *end)
{
    if (end->any.sa_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&end->v6.sin6_addr);
    return end->v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

int udp_ask_destination(int fd, const struct udp_end *bound)
{
    int on = 1;
    int result = bound->any.sa_family == AF_INET6
                     ? setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on))
                     : setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
    return result == 0 ? 0 : -errno;
}

bool udp_read_destination(struct msghdr *control, struct udp_end *local)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(control); c; c = CMSG_NXTHDR(control, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            local->v4.sin_addr = info.ipi_spec_dst; /* of ours, even for a broadcast */
            return true;
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof(info));
            local->v6.sin6_addr = info.ipi6_addr;
            if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                local->v6.sin6_scope_id = info.ipi6_ifindex;
            return true;
        }
    }
    return false;
}

size_t udp_write_source(const struct udp_end *local, void *control)
{
    struct msghdr msg = {.msg_control = control, .msg_controllen = UDP_CONTROL_ROOM};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (local->any.sa_family == AF_INET6) {
        struct in6_pktinfo info = {.ipi6_addr = local->v6.sin6_addr,
                                   .ipi6_ifindex = local->v6.sin6_scope_id};
        *c = (struct cmsghdr){CMSG_LEN(sizeof(info)), IPPROTO_IPV6, IPV6_PKTINFO};
        memcpy(CMSG_DATA(c), &info, sizeof(info));
        return CMSG_SPACE(sizeof(info));
    }
    struct in_pktinfo info = {.ipi_spec_dst = local->v4.sin_addr};
    *c = (struct cmsghdr){CMSG_LEN(sizeof(info)), IPPROTO_IP, IP_PKTINFO};
    memcpy(CMSG_DATA(c), &info, sizeof(info));
    return CMSG_SPACE(sizeof(info));
}

bool udp_sends_runs(int fd)
{
    int segment;
    socklen_t len = sizeof(segment);
    return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, &len) == 0;
}

void udp_ask_runs(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on));
}

uint32_t udp_read_segment(struct msghdr *control, uint32_t bytes)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(control); c; c = CMSG_NXTHDR(control, c)) {
        int segment;
        if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
            continue;
        memcpy(&segment, CMSG_DATA(c), sizeof(segment));
        if (segment > 0 && (uint32_t)segment < bytes)
            return (uint32_t)segment;
    }
    return bytes;
}

size_t udp_write_segment(uint32_t segment, void *control)
{
    uint16_t size = (uint16_t)segment;
    struct msghdr msg = {.msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(size))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){CMSG_LEN(sizeof(size)), IPPROTO_UDP, UDP_SEGMENT};
    memcpy(CMSG_DATA(c), &size, sizeof(size));
    return CMSG_SPACE(sizeof(size));
}

int udp_connect(const struct address *to)
{
    if (to->any.sa_family == AF_UNIX)
        return -EAFNOSUPPORT;
    int fd = socket(to->any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, &to->any, to->len) == 0)
        return fd;
    int result = -errno;
    close(fd);
    return result;
}
