/*
 * The floor on io_uring: one system call a turn, which submits what the turn before has asked for
 * and waits; receives that stay armed (multishot) and take their buffers from a shared ring; the
 * ring's descriptor is registered.
 *
 *   from ──receive, armed──▶ buffer ──▶ buffer ──send──▶ to     one send at a time, so that pieces
 *                              └─ queue ─┘                      stay in order; then its buffer goes
 *                                                               back to the ring
 */
#include "floor.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    RING_ENTRIES = 1024,
    COMPLETIONS = 8192,
    BUFFERS = 64, /* of all connections; a power of two */
    BUFFER_BYTES = 256 << 10,
    NO_BUFFER = -1,
};

/* What has completed, in the low bit of its user data. Accepting has none but 0. */
enum kind { RECEIVE, SEND, KIND_MASK = 1 };

struct flow {
    int from, to;
    struct pair *pair;
    int first, last; /* buffers that wait to be sent, the first one maybe under way */
    bool starved;    /* in the list of those that wait for buffers */
};

struct pair {
    struct flow up, down;
    unsigned pending; /* operations under way */
    bool over;        /* to be freed when nothing is under way */
};

static struct io_uring ring;
static struct io_uring_buf_ring *free_buffers;
static char *memory;
static struct {
    unsigned len;
    int next;
} pieces[BUFFERS];
static struct flow *starved[BUFFERS * 64];
static unsigned starved_count;
static int buffers_used;

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

static void submit(struct flow *flow, struct io_uring_sqe *entry, enum kind kind)
{
    io_uring_sqe_set_data64(entry, (uintptr_t)flow | kind);
    flow->pair->pending++;
}

static char *buffer_bytes(int buffer)
{
    return memory + (size_t)buffer * BUFFER_BYTES;
}

static void receive(struct flow *flow)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_recv_multishot(entry, flow->from, NULL, 0, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = 0;
    submit(flow, entry, RECEIVE);
}

static void send_first(struct flow *flow)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_send(entry, flow->to, buffer_bytes(flow->first), pieces[flow->first].len,
                       MSG_WAITALL | MSG_NOSIGNAL);
    submit(flow, entry, SEND);
}

static void give_back(int buffer)
{
    io_uring_buf_ring_add(free_buffers, buffer_bytes(buffer), BUFFER_BYTES, (unsigned short)buffer,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(free_buffers, 1);
    buffers_used--;
}

static void received(struct flow *flow, int buffer, unsigned len)
{
    buffers_used++;
    pieces[buffer].len = len;
    pieces[buffer].next = NO_BUFFER;
    if (flow->first == NO_BUFFER) {
        flow->first = flow->last = buffer;
        send_first(flow);
    } else {
        pieces[flow->last].next = buffer;
        flow->last = buffer;
    }
}

static void wait_for_buffer(struct flow *flow)
{
    assert(starved_count < sizeof(starved) / sizeof(*starved));
    flow->starved = true;
    starved[starved_count++] = flow;
}

static void open_pair(int client)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    assert(pair);
    int upstream = floor_connect(client);
    pair->up = (struct flow){.from = client, .to = upstream, .pair = pair, .first = NO_BUFFER};
    pair->down = (struct flow){.from = upstream, .to = client, .pair = pair, .first = NO_BUFFER};
    receive(&pair->up);
    receive(&pair->down);
}

static void drop_queue(struct flow *flow)
{
    while (flow->first != NO_BUFFER) {
        int buffer = flow->first;
        flow->first = pieces[buffer].next;
        give_back(buffer);
    }
}

/* Frees the pair when nothing is under way; a shutdown ends what is. */
static void end_pair(struct pair *pair)
{
    if (!pair->over) {
        pair->over = true;
        shutdown(pair->up.from, SHUT_RDWR);
        shutdown(pair->down.from, SHUT_RDWR);
    }
    if (pair->pending > 0 || pair->up.starved || pair->down.starved)
        return;
    drop_queue(&pair->up);
    drop_queue(&pair->down);
    close(pair->up.from);
    close(pair->down.from);
    free(pair);
}

/* At the end of a turn, when all that had ended in it has given its buffers back. */
static void feed_starved(void)
{
    if (buffers_used == BUFFERS)
        return;
    while (starved_count > 0) {
        struct flow *flow = starved[--starved_count];
        flow->starved = false;
        if (flow->pair->over)
            end_pair(flow->pair);
        else
            receive(flow);
    }
}

static void accept_clients(int listener)
{
    struct io_uring_sqe *entry = next_entry();
    io_uring_prep_multishot_accept(entry, listener, NULL, NULL, 0);
    io_uring_sqe_set_data(entry, NULL);
}

/* False: the pair is over. */
static bool receive_completed(struct flow *flow, int result, unsigned flags)
{
    if (result > 0)
        received(flow, (int)(flags >> IORING_CQE_BUFFER_SHIFT), (unsigned)result);
    if (flags & IORING_CQE_F_MORE)
        return true;
    flow->pair->pending--;
    if (result == -ENOBUFS)
        wait_for_buffer(flow);
    else if (result > 0 && !flow->pair->over)
        receive(flow);
    return result > 0 || result == -ENOBUFS;
}

static bool send_completed(struct flow *flow, int result)
{
    int buffer = flow->first;
    flow->pair->pending--;
    bool whole = result == (int)pieces[buffer].len;
    flow->first = pieces[buffer].next;
    if (whole && flow->first != NO_BUFFER && !flow->pair->over)
        send_first(flow);
    give_back(buffer);
    return whole;
}

static void handle(const struct io_uring_cqe *completion, int listener)
{
    struct flow *flow = (struct flow *)(completion->user_data & ~(uintptr_t)KIND_MASK);
    if (!flow) {
        if (completion->res >= 0)
            open_pair(completion->res);
        if (!(completion->flags & IORING_CQE_F_MORE))
            accept_clients(listener);
        return;
    }
    struct pair *pair = flow->pair;
    bool goes_on = (completion->user_data & KIND_MASK) == SEND
                       ? send_completed(flow, completion->res)
                       : receive_completed(flow, completion->res, completion->flags);
    if (!goes_on || pair->over)
        end_pair(pair);
}

static void make_buffers(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t ring_bytes = (BUFFERS * sizeof(struct io_uring_buf) + page - 1) / page * page;
    free_buffers = aligned_alloc(page, ring_bytes);
    memory = aligned_alloc(page, (size_t)BUFFERS * BUFFER_BYTES);
    assert(free_buffers && memory);
    struct io_uring_buf_reg registration = {.ring_addr = (uintptr_t)free_buffers,
                                            .ring_entries = BUFFERS};
    int failed = io_uring_register_buf_ring(&ring, &registration, 0);
    assert(!failed);
    io_uring_buf_ring_init(free_buffers);
    buffers_used = BUFFERS;
    for (int i = 0; i < BUFFERS; i++)
        give_back(i);
}

void floor_uring(int listener)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    int failed = io_uring_queue_init_params(RING_ENTRIES, &ring, &params);
    if (failed) {
        fprintf(stderr, "floor: io_uring: %s\n", strerror(-failed));
        exit(1);
    }
    int registered = io_uring_register_ring_fd(&ring);
    assert(registered == 1);
    make_buffers();
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
        feed_starved();
    }
}
