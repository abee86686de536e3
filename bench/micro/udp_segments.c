/*
 * What segmentation by the kernel (UDP_GRO on the receiving side, UDP_SEGMENT on the sending one)
 * would save a proxy of datagrams, in CPU time of the process in the middle:
 *
 *   sender ──▶ forwarder, measured ──▶ receiver, which gives the sender leave for the next window
 *
 * usage: bench-udp_segments [DATAGRAMS]; prints a line for each kind of sender and way to forward.
 */
#include <arpa/inet.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WINDOW = 64, ROOM = 65536, BUFFER_BYTES = 4 << 20 };

static void must(bool well, const char *what)
{
    if (well)
        return;
    perror(what);
    exit(1);
}

static int open_socket(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){BUFFER_BYTES}, sizeof(int));
    return fd;
}

static void connect_to(int fd, int other)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    must(getsockname(other, (struct sockaddr *)&address, &len) == 0, "getsockname");
    must(connect(fd, (struct sockaddr *)&address, len) == 0, "connect");
}

/* Sends them, as segments of that size if it is not 0. */
static void send_bytes(int fd, const char *bytes, size_t len, uint16_t segment)
{
    char control[CMSG_SPACE(sizeof(segment))] = {0};
    struct iovec iov = {(void *)bytes, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (segment && segment < len) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        header->cmsg_level = IPPROTO_UDP;
        header->cmsg_type = UDP_SEGMENT;
        header->cmsg_len = CMSG_LEN(sizeof(segment));
        memcpy(CMSG_DATA(header), &segment, sizeof(segment));
    }
    must(sendmsg(fd, &msg, 0) == (ssize_t)len, "sendmsg");
}

/* Returns how many bytes came, and of which size the datagrams are that they consist of. */
static size_t receive(int fd, char *bytes, uint16_t *segment)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {bytes, ROOM};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    ssize_t len = recvmsg(fd, &msg, 0);
    must(len > 0, "recvmsg");
    *segment = (uint16_t)len;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&msg); header; header = CMSG_NXTHDR(&msg, header)) {
        int size;
        if (header->cmsg_level != IPPROTO_UDP || header->cmsg_type != UDP_GRO)
            continue;
        memcpy(&size, CMSG_DATA(header), sizeof(size));
        *segment = (uint16_t)size;
    }
    return (size_t)len;
}

static void run_sender(int fd, int leave, unsigned count, unsigned at_once, uint16_t size)
{
    static char bytes[ROOM];
    char word;
    for (unsigned sent = 0; sent < count;) {
        for (unsigned i = 0; i < WINDOW; i += at_once, sent += at_once)
            send_bytes(fd, bytes, (size_t)at_once * size, at_once > 1 ? size : 0);
        must(read(leave, &word, 1) == 1, "the receiver");
    }
    exit(0);
}

static void run_receiver(int fd, int leave, unsigned count)
{
    static char bytes[ROOM];
    for (unsigned i = 1; i <= count; i++) {
        must(recv(fd, bytes, sizeof(bytes), 0) > 0, "recv");
        if (i % WINDOW == 0)
            must(write(leave, "", 1) == 1, "the sender");
    }
    exit(0);
}

static double cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static double measure(unsigned count, unsigned at_once, uint16_t size, bool segments)
{
    static char bytes[ROOM];
    int from = open_socket(), in = open_socket(), out = open_socket(), to = open_socket();
    int leave[2];
    connect_to(from, in);
    connect_to(out, to);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, leave) == 0, "socketpair");
    if (segments)
        must(setsockopt(in, IPPROTO_UDP, UDP_GRO, &(int){1}, sizeof(int)) == 0, "UDP_GRO");
    if (fork() == 0)
        run_receiver(to, leave[0], count);
    if (fork() == 0)
        run_sender(from, leave[1], count, at_once, size);
    double before_us = cpu_us();
    for (unsigned passed = 0; passed < count;) {
        uint16_t segment;
        size_t len = receive(in, bytes, &segment);
        send_bytes(out, bytes, len, segments ? segment : 0);
        passed += (unsigned)((len + segment - 1) / segment);
    }
    double spent_us = cpu_us() - before_us;
    while (wait(NULL) > 0)
        continue;
    const int all[] = {from, in, out, to, leave[0], leave[1]};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        close(all[i]);
    return spent_us / count;
}

int main(int argc, char **argv)
{
    unsigned count = (argc > 1 ? (unsigned)atoi(argv[1]) : 320000) / WINDOW * WINDOW;
    const struct {
        const char *name;
        unsigned at_once;
        uint16_t size;
    } senders[] = {
        {"1,200 bytes, 32 at once", 32, 1200},
        {"1,200 bytes, 8 at once", 8, 1200},
        {"1,200 bytes, one by one", 1, 1200},
        {"64 bytes, one by one", 1, 64},
    };
    alarm(300);
    for (unsigned i = 0; i < sizeof(senders) / sizeof(senders[0]); i++) {
        double each = measure(count, senders[i].at_once, senders[i].size, false);
        double segments = measure(count, senders[i].at_once, senders[i].size, true);
        printf("%-26s %5.2f us each, %5.2f us with segments\n", senders[i].name, each, segments);
        fflush(stdout); /* before the next fork */
    }
    return 0;
}
