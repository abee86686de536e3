/*
 * The floor of the benchmark: the least that a proxy on io_uring can do. Each client connection has
 * an upstream connection of its own; a request is taken to end at the first empty line, a response
 * after Content-Length bytes; every byte is passed on as it came. No timeouts, no checks, no
 * rewriting: it shows what the kernel's part of the work costs, and is good for nothing else.
 *
 *   client ──recv──▶ request ──send──▶ upstream     a send is submitted together with the receive
 * of client ◀──send── response ◀──recv── upstream    what it will cause; only a response of several
 *                                                   pieces waits for each piece to be sent
 *
 * usage: floor PORT UPSTREAM_PORT
 */
#include "loopback.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RING_ENTRIES = 1024, REQUEST_BYTES_MAX = 8 << 10, RESPONSE_BYTES_MAX = 128 << 10 };

/* The kind of an operation, in the low bits of its user data. */
enum kind { RECV_REQUEST, SEND_REQUEST, RECV_RESPONSE, SEND_RESPONSE, KIND_MASK = 3 };

struct pair {
    int client;
    int upstream;
    unsigned pending; /* operations under way */
    bool over;        /* to be freed when nothing is under way */
    bool in_body;     /* the response's head has been seen */
    size_t request_len;
    size_t missing; /* of the response, after what has been received */
    char request[REQUEST_BYTES_MAX];
    char response[RESPONSE_BYTES_MAX + 1];
};

static struct io_uring ring;
static struct sockaddr_in upstream_address;

static struct io_uring_sqe *next_entry(void)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    if (!entry) {
        io_uring_submit(&ring);
        entry = io_uring_get_sqe(&ring);
    }
    assert(entry);
    return entry;
}

static void submit(struct pair *pair, struct io_uring_sqe *entry, enum kind kind)
{
    io_uring_sqe_set_data64(entry, (uintptr_t)pair | kind);
    pair->pending++;
}

static void receive_request(struct pair *pair)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_recv(entry, pair->client, pair->request + pair->request_len,
                       REQUEST_BYTES_MAX - pair->request_len, 0);
    submit(pair, entry, RECV_REQUEST);
}

static void receive_response(struct pair *pair)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_recv(entry, pair->upstream, pair->response, RESPONSE_BYTES_MAX, 0);
    submit(pair, entry, RECV_RESPONSE);
}

static void transmit(struct pair *pair, enum kind kind, int fd, const char *bytes, size_t len)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_send(entry, fd, bytes, len, MSG_WAITALL | MSG_NOSIGNAL);
    submit(pair, entry, kind);
}

/* Finds the end of the response's head and from that how much is still to come. False: no head. */
static bool start_response(struct pair *pair, size_t len)
{
    pair->response[len] = '\0';
    const char *end = strstr(pair->response, "\r\n\r\n");
    const char *field = strcasestr(pair->response, "\r\ncontent-length:");
    if (!end || !field || field > end)
        return false;
    pair->missing = (size_t)(end + 4 - pair->response) + strtoul(field + 17, NULL, 10) - len;
    pair->in_body = true;
    return true;
}

static bool request_arrived(struct pair *pair, size_t len)
{
    pair->request_len += len;
    if (memmem(pair->request, pair->request_len, "\r\n\r\n", 4)) {
        transmit(pair, SEND_REQUEST, pair->upstream, pair->request, pair->request_len);
        pair->in_body = false;
        receive_response(pair);
        return true;
    }
    receive_request(pair);
    return pair->request_len < REQUEST_BYTES_MAX;
}

static bool response_arrived(struct pair *pair, size_t len)
{
    if (pair->in_body)
        pair->missing -= len;
    else if (!start_response(pair, len))
        return false;
    transmit(pair, SEND_RESPONSE, pair->client, pair->response, len);
    if (pair->missing == 0) {
        pair->request_len = 0;
        receive_request(pair);
    }
    return true;
}

/* Goes on after an operation that moved `len` bytes. False: the pair is over. */
static bool advance(struct pair *pair, enum kind kind, size_t len)
{
    switch (kind) {
    case RECV_REQUEST:
        return request_arrived(pair, len);
    case RECV_RESPONSE:
        return response_arrived(pair, len);
    case SEND_RESPONSE:
        if (pair->missing > 0)
            receive_response(pair);
        return true;
    default:
        return true;
    }
}

static void open_pair(int client)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    assert(pair);
    pair->client = client;
    pair->upstream = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(pair->upstream, (struct sockaddr *)&upstream_address, sizeof(upstream_address))) {
        perror("floor: connect");
        exit(1);
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(pair->upstream, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    receive_request(pair);
}

/* Frees the pair when nothing is under way; a shutdown ends what is. */
static void end_pair(struct pair *pair)
{
    if (!pair->over) {
        pair->over = true;
        shutdown(pair->client, SHUT_RDWR);
        shutdown(pair->upstream, SHUT_RDWR);
    }
    if (pair->pending == 0) {
        close(pair->client);
        close(pair->upstream);
        free(pair);
    }
}

static void accept_clients(int listener)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_multishot_accept(entry, listener, NULL, NULL, 0);
    io_uring_sqe_set_data(entry, NULL);
}

static void handle(const struct io_uring_cqe *completion, int listener)
{
    struct pair *pair = (struct pair *)(completion->user_data & ~(uintptr_t)KIND_MASK);
    enum kind kind = completion->user_data & KIND_MASK;
    int result = completion->res;
    if (!pair) {
        if (result >= 0)
            open_pair(result);
        if (!(completion->flags & IORING_CQE_F_MORE))
            accept_clients(listener);
        return;
    }
    pair->pending--;
    if (pair->over || result <= 0 || !advance(pair, kind, (size_t)result))
        end_pair(pair);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: floor PORT UPSTREAM_PORT\n");
        return 2;
    }
    upstream_address = loopback_address((uint16_t)strtoul(argv[2], NULL, 10));
    int listener = loopback_listen((uint16_t)strtoul(argv[1], NULL, 10), 0);

    int failed = io_uring_queue_init(RING_ENTRIES, &ring,
                                     IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (failed) {
        fprintf(stderr, "floor: io_uring: %s\n", strerror(-failed));
        return 1;
    }
    accept_clients(listener);
    for (;;) {
        io_uring_submit_and_wait(&ring, 1);
        struct io_uring_cqe *completion;
        unsigned head, count = 0;
        io_uring_for_each_cqe(&ring, head, completion)
        {
            handle(completion, listener);
            count++;
        }
        io_uring_cq_advance(&ring, count);
    }
}
