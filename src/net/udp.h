/* UDP sockets, their addresses and what the kernel says beside datagrams. Never suspends. */
#ifndef NET_UDP_H
#define NET_UDP_H

#include "net/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* One end of a flow: an internet address and port; bytes that mean nothing are 0, so that two of
 * them can be compared and hashed as bytes. */
struct udp_end {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        uint32_t words[sizeof(struct sockaddr_in6) / 4];
    };
};

enum {
    UDP_NAME_ROOM = 32,    /* for a struct udp_end, as IO_OP_RECV_FROM wants it */
    UDP_CONTROL_ROOM = 64, /* for the address that a datagram was sent to, and for a segment size */
    UDP_RUN_BYTES_MAX = 65507, /* that one system call sends, of either family */
    UDP_RUN_MAX = 64,          /* datagrams that it sends (UDP_MAX_SEGMENTS of older kernels) */
};

/* A sender's address as the kernel gives it. False if it is of no internet. */
bool udp_end_read(struct udp_end *end, const struct sockaddr *address, socklen_t len);

void udp_end_from_address(struct udp_end *end, const struct address *address);
void udp_end_to_address(const struct udp_end *end, struct address *address);

/* Bytes of it that the kernel wants. */
socklen_t udp_end_bytes(const struct udp_end *end);

/* Does a socket that is bound to it get datagrams for several addresses? */
bool udp_end_any(const struct udp_end *end);

/* Has the kernel tell which address each datagram was sent to. Returns 0 or a negative errno. */
int udp_ask_destination(int fd, const struct udp_end *bound);

/* Puts that address into *local, whose port stays; false if nothing was told. */
bool udp_read_destination(struct msghdr *control, struct udp_end *local);

/* The control message that lets a datagram leave from that address. Returns its bytes; it and a
 * segment size fit into UDP_CONTROL_ROOM. */
size_t udp_write_source(const struct udp_end *local, void *control);

/* Runs: datagrams of one flow and of equal size, of which the last may be shorter, that the kernel
 * takes and gives as one (UDP_SEGMENT, UDP_GRO). The size of each is their segment size. */

/* Does the kernel take runs on such sockets? */
bool udp_sends_runs(int fd);

/* Has it give what has come as runs, if it can. The buffers must have room for 65,535 bytes. */
void udp_ask_runs(int fd);

/* The segment size of what was received: all of it, if it was one datagram. */
uint32_t udp_read_segment(struct msghdr *control, uint32_t bytes);

/* How many datagrams they are. */
static inline uint32_t udp_run_count(uint32_t bytes, uint32_t segment)
{
    return bytes > segment ? (bytes + segment - 1) / segment : 1;
}

/* The control message that has a message sent as a run. Returns its bytes. */
size_t udp_write_segment(uint32_t segment, void *control);

/* A non-blocking socket that sends to that address and receives from nobody else. Returns it, or a
 * negative errno. */
int udp_connect(const struct address *to);

#endif
