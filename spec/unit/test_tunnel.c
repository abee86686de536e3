/* Tunnels: bytes copied and spliced, and the changes between the two; ends, errors, slow readers.
 */
#include "support/loop.h"

#include "io/backend.h"
#include "net/tunnel_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PIPE_BYTES_MAX = 512 << 10, PIPES_OF_A_WORKER = 64, BULK_BYTES = 8 << 20 };

static struct stream streams[2]; /* the proxy's ends: towards the client, towards the peer */
static int client, peer;
static struct tunnel *tunnel; /* NULL when it has ended */
static struct tunnel_result result;
static unsigned closed_streams;
static char noise[1 << 20];

/* --- A tunnel between two ends ---------------------------------------------------------------- */

static void done(const struct tunnel_result *of, void *owner)
{
    assert_ptr_equal(owner, &result);
    result = *of;
    tunnel = NULL;
}

static void closed(struct stream *stream)
{
    (void)stream;
    closed_streams++;
}

static int init_stream(struct stream *stream, void (*open_pair)(int fds[2]))
{
    int fds[2];
    open_pair(fds);
    stream_init(stream, loop, fds[0]);
    stream->on_closed = closed;
    stream_start(stream);
    return fds[1];
}

static void fill_noise(void)
{
    unsigned seed = 7;
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)rand_r(&seed);
}

static void start(struct tunnel_options options)
{
    tunnel = tunnel_start(&streams[0], &streams[1], &options, done, &result);
    assert_non_null(tunnel);
}

static void open_ends(void (*open_pair)(int fds[2]))
{
    signal(SIGPIPE, SIG_IGN);
    fill_noise();
    closed_streams = 0;
    client = init_stream(&streams[0], open_pair);
    peer = init_stream(&streams[1], open_pair);
}

static void open_tunnel(void)
{
    open_ends(open_tcp_pair);
    start((struct tunnel_options){.deadline = DEADLINE_NEVER});
}

static void await_end(enum tunnel_reason reason)
{
    turn_until(closed_streams == 2);
    assert_null(tunnel);
    assert_int_equal(result.reason, reason);
}

static void close_ends(void)
{
    close(client);
    close(peer);
}

/* Ends it in good order. */
static void end_tunnel(void)
{
    shutdown(client, SHUT_WR);
    shutdown(peer, SHUT_WR);
    await_end(TUNNEL_ENDED);
    close_ends();
}

/* --- What flows ------------------------------------------------------------------------------- */

/* Random pieces of noise, one way. */
struct flow {
    int from;
    int to;
    size_t goal; /* bytes that are to be sent */
    size_t sent;
    size_t received;
    uint32_t sum_sent;
    uint32_t sum_received;
    unsigned seed;
    bool ended; /* FIN was read */
};

static size_t random_size(struct flow *flow, size_t max)
{
    return 1 + (size_t)rand_r(&flow->seed) % max;
}

/* Returns true if the socket took something. */
static bool flow_send(struct flow *flow)
{
    size_t left = flow->goal - flow->sent;
    size_t size = random_size(flow, 200000);
    if (!left)
        return false;
    const char *from = noise + random_size(flow, sizeof(noise) - size) - 1;
    ssize_t count = send(flow->from, from, size < left ? size : left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count <= 0)
        return false;
    flow->sum_sent = checksum_add(flow->sum_sent, from, (size_t)count);
    flow->sent += (size_t)count;
    return true;
}

static void flow_receive(struct flow *flow)
{
    static char bytes[300000];
    ssize_t count = recv(flow->to, bytes, random_size(flow, sizeof(bytes)), MSG_DONTWAIT);
    flow->ended |= count == 0;
    if (count <= 0)
        return;
    flow->sum_received = checksum_add(flow->sum_received, bytes, (size_t)count);
    flow->received += (size_t)count;
}

static bool flow_step(struct flow *flow)
{
    flow_send(flow);
    flow_receive(flow);
    return flow->received == flow->goal;
}

static void check_flow(const struct flow *flow)
{
    assert_int_equal(flow->received, flow->goal);
    assert_int_equal(flow->sum_received, flow->sum_sent);
}

static struct flow flow_up(size_t bytes)
{
    return (struct flow){.from = client, .to = peer, .goal = bytes, .seed = 1};
}

static struct flow flow_down(size_t bytes)
{
    return (struct flow){.from = peer, .to = client, .goal = bytes, .seed = 2};
}

/* Sends until nothing is taken any more, since nobody reads. */
static void stuff(struct flow *flow)
{
    for (unsigned idle_turns = 0; idle_turns < 20;) {
        loop_turn(1);
        idle_turns = flow_send(flow) ? 0 : idle_turns + 1;
    }
    flow->goal = flow->sent;
}

/* Moves bulk until it is spliced, which it may have ceased to be by the end of it; all of it has
 * arrived then. */
static void splice_up(void)
{
    for (unsigned tries = 0; tries < 5; tries++) {
        struct flow up = flow_up(BULK_BYTES);
        turn_often_until(1, flow_step(&up));
        check_flow(&up);
        if (tunnel->out.splice)
            return;
    }
    fail_msg("it is not spliced");
}

static void say(int from, int to, const char *word)
{
    char heard[64] = {0};
    assert_int_equal(send(from, word, strlen(word), 0), strlen(word));
    turn_until(recv(to, heard, sizeof(heard), MSG_DONTWAIT) > 0);
    assert_string_equal(heard, word);
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void carries_words_and_ends(void **state)
{
    (void)state;
    open_tunnel();
    say(client, peer, "question");
    say(peer, client, "answer");
    shutdown(client, SHUT_WR);
    char byte;
    turn_until(recv(peer, &byte, 1, MSG_DONTWAIT) == 0);
    say(peer, client, "later");
    shutdown(peer, SHUT_WR);
    await_end(TUNNEL_ENDED);
    assert_int_equal(result.error, 0);
    assert_int_equal(result.client_bytes, 8);
    assert_int_equal(result.peer_bytes, 11);
    close_ends();
}

static void is_small_while_idle(void **state)
{
    (void)state;
    assert_true(sizeof(struct tunnel) <= 320);
    open_tunnel();
    say(client, peer, "question");
    loop_turn_idle();
    assert_null(tunnel->out.send);
    assert_null(tunnel->out.splice);
    assert_int_equal(io_stats(loop).buffers_held, 0);
    end_tunnel();
}

static void bulk_is_spliced_both_ways(void **state)
{
    (void)state;
    open_tunnel();
    struct flow up = flow_up(BULK_BYTES), down = flow_down(BULK_BYTES / 2);
    bool spliced_up = false, spliced_down = false;
    bool up_through = false, down_through = false;
    while (!up_through || !down_through) {
        uint64_t before = streams[0].bytes_in;
        bool by_pipe = tunnel->out.splice;
        loop_turn(0);
        if (by_pipe) /* in one turn no more than a pipe holds */
            assert_true(streams[0].bytes_in - before <= PIPE_BYTES_MAX);
        spliced_up |= tunnel->out.splice != NULL;
        spliced_down |= tunnel->back.splice != NULL;
        up_through = flow_step(&up);
        down_through = flow_step(&down);
    }
    check_flow(&up);
    check_flow(&down);
    assert_true(spliced_up && spliced_down);
    end_tunnel();
    assert_int_equal(result.client_bytes, up.goal);
    assert_int_equal(result.peer_bytes, down.goal);
    assert_int_equal(streams[0].bytes_in, up.goal);
    assert_int_equal(streams[1].bytes_out, up.goal);
}

static void local_sockets_are_spliced(void **state)
{
    (void)state;
    open_ends(open_local_pair);
    start((struct tunnel_options){.deadline = DEADLINE_NEVER});
    splice_up();
    end_tunnel();
}

static void copies_if_told_to(void **state)
{
    (void)state;
    open_ends(open_tcp_pair);
    start((struct tunnel_options){.deadline = DEADLINE_NEVER, .copy_only = true});
    struct flow up = flow_up(BULK_BYTES);
    turn_often_until(1, (assert_null(tunnel->out.splice), flow_step(&up)));
    check_flow(&up);
    end_tunnel();
}

static void small_messages_are_copied_again(void **state)
{
    (void)state;
    open_tunnel();
    splice_up();
    for (unsigned i = 0; i < 20; i++)
        say(client, peer, "word");
    assert_null(tunnel->out.splice);
    assert_false(streams[0].paused);
    splice_up(); /* and spliced again */
    end_tunnel();
}

static void what_dries_up_is_copied_again(void **state)
{
    (void)state;
    open_tunnel();
    splice_up();
    turn_until(!tunnel->out.splice);
    io_trim(loop);
    io_trim(loop); /* unused since the last time */
    assert_int_equal(loop->pipes.count, 0);
    assert_true(io_op_in_flight(&streams[0].recv));
    say(client, peer, "word");
    end_tunnel();
}

static void half_closed_ones_are_spliced(void **state)
{
    (void)state;
    open_tunnel();
    struct flow up = flow_up(BULK_BYTES);
    turn_often_until(1, (flow_step(&up), up.sent == up.goal));
    shutdown(client, SHUT_WR);
    turn_often_until(1, (flow_step(&up), up.ended));
    check_flow(&up);
    struct flow down = flow_down(BULK_BYTES);
    bool spliced = false;
    turn_often_until(1, (spliced |= tunnel->back.splice != NULL, flow_step(&down)));
    assert_true(spliced);
    check_flow(&down);
    shutdown(peer, SHUT_WR);
    await_end(TUNNEL_ENDED);
    close_ends();
}

static void await_reset_of_client(void)
{
    char byte;
    ssize_t got;
    turn_until((got = recv(client, &byte, 1, MSG_DONTWAIT)) >= 0 || errno != EAGAIN);
    assert_int_equal(got, -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
}

/* The kernel tells of a reset once. If a send is told, what is received looks like the end. */
static void a_reset_that_a_send_has_met_is_no_end(void **state)
{
    (void)state;
    for (unsigned spliced = 0; spliced < 2; spliced++) {
        open_tunnel();
        say(client, peer, "question");
        struct flow down = flow_down(BULK_BYTES);
        if (spliced)
            turn_often_until(1, (flow_step(&down), down.received == down.goal));
        assert_true(!spliced == !tunnel->back.splice);
        assert_int_equal(send(client, "x", 1, 0), 1);
        close_by_reset(peer);
        await_end(TUNNEL_PEER_FAILED);
        await_reset_of_client();
    }
}

/* The same where the send has waited, and bytes of the other direction for a pipe. */
static void a_reset_that_a_stuck_send_has_met_is_no_end(void **state)
{
    (void)state;
    open_tunnel();
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    assert_non_null(tunnel->out.send);
    struct flow down = flow_down(BULK_BYTES);
    turn_often_until(1, (flow_step(&down), down.received == down.goal));
    assert_non_null(tunnel->back.splice);
    close_by_reset(peer);
    await_end(TUNNEL_PEER_FAILED);
    await_reset_of_client();
}

static void a_slow_reader_holds_a_pipe_at_most(void **state)
{
    (void)state;
    open_tunnel();
    splice_up();
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    assert_non_null(tunnel->out.splice);
    assert_true(streams[0].bytes_in - streams[1].bytes_out <= PIPE_BYTES_MAX);
    assert_int_equal(io_stats(loop).buffers_held, 0);
    say(peer, client, "the other way is free");
    turn_often_until(1, flow_step(&up));
    check_flow(&up);
    end_tunnel();
}

/* The reader has said FIN long ago: that must neither wake for nothing nor end anything. */
static void a_slow_reader_that_said_fin_gets_all(void **state)
{
    (void)state;
    open_tunnel();
    splice_up();
    shutdown(peer, SHUT_WR);
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    shutdown(client, SHUT_WR);
    uint64_t turns = io_stats(loop).turns;
    for (int64_t end_ms = clock_now_ms() + 350; clock_now_ms() < end_ms;)
        loop_turn(100);
    assert_true(io_stats(loop).turns - turns < 50);
    turn_often_until(1, (flow_step(&up), up.ended));
    check_flow(&up);
    await_end(TUNNEL_ENDED);
    close_ends();
}

/* What one tunnel leaves in a pipe must not come out of another. */
static void a_reset_reader_leaves_a_dirty_pipe(void **state)
{
    (void)state;
    open_tunnel();
    splice_up();
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    assert_non_null(tunnel->out.splice->pipe);
    close_by_reset(peer);
    await_end(TUNNEL_PEER_FAILED);
    assert_true(result.error == -ECONNRESET || result.error == -EPIPE);
    char byte;
    turn_until(recv(client, &byte, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET);
    close(client);
    open_tunnel();
    splice_up();
    end_tunnel();
}

static void a_reset_source_is_told_of(void **state)
{
    (void)state;
    open_tunnel();
    splice_up();
    assert_non_null(tunnel->out.splice);
    close_by_reset(client);
    await_end(TUNNEL_CLIENT_FAILED);
    assert_int_equal(result.error, -ECONNRESET);
    close(peer);
}

static void a_reset_behind_the_end_is_told_of(void **state)
{
    (void)state;
    open_tunnel();
    shutdown(client, SHUT_WR);
    char byte;
    turn_until(recv(peer, &byte, 1, MSG_DONTWAIT) == 0);
    close_by_reset(client);
    await_end(TUNNEL_CLIENT_FAILED);
    assert_int_equal(result.error, -ECONNRESET);
    close(peer);
}

static void is_cancelled_in_any_state(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        open_tunnel();
        if (i >= 1)
            say(client, peer, "word");
        if (i >= 2)
            splice_up();
        struct flow up = flow_up(SIZE_MAX);
        if (i >= 3)
            stuff(&up);
        tunnel_cancel(tunnel);
        await_end(TUNNEL_CANCELLED);
        close_ends();
    }
}

/* What a send had got rid of when it was cut has been sent as any other. */
static void counts_what_went_before_a_cut(void **state)
{
    (void)state;
    open_ends(open_local_pair);
    start((struct tunnel_options){.deadline = DEADLINE_NEVER, .copy_only = true});
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    tunnel_cancel(tunnel);
    await_end(TUNNEL_CANCELLED);
    turn_often_until(0, (flow_receive(&up), up.ended));
    assert_int_equal(result.client_bytes, up.received);
    assert_int_equal(streams[1].bytes_out, up.received);
    close_ends();
}

static void copies_without_a_pipe(void **state)
{
    struct io_pipe *taken[PIPES_OF_A_WORKER];
    (void)state;
    open_tunnel();
    for (unsigned i = 0; i < PIPES_OF_A_WORKER; i++)
        assert_non_null(taken[i] = io_pipe_take(loop));
    assert_null(io_pipe_take(loop));
    struct flow up = flow_up(BULK_BYTES);
    turn_often_until(1, (assert_null(tunnel->out.splice), flow_step(&up)));
    check_flow(&up);
    for (unsigned i = 0; i < PIPES_OF_A_WORKER; i++)
        io_pipe_release(loop, taken[i]);
    splice_up();
    end_tunnel();
}

static void copies_without_descriptors(void **state)
{
    struct rlimit limit;
    (void)state;
    open_tunnel();
    int next = dup(client);
    close(next);
    getrlimit(RLIMIT_NOFILE, &limit);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)next, limit.rlim_max});
    struct flow up = flow_up(BULK_BYTES);
    turn_often_until(1, flow_step(&up));
    setrlimit(RLIMIT_NOFILE, &limit);
    check_flow(&up);
    end_tunnel();
}

/* --- Chance
 * --------------------------------------------------------------------------------------- */

/* Sends, says FIN behind the last byte, and reads: mostly, so that either side may fall behind. */
static void live(struct flow *flow, bool *said_fin)
{
    if (random_size(flow, 4) > 1)
        flow_send(flow);
    if (flow->sent == flow->goal && !*said_fin) {
        shutdown(flow->from, SHUT_WR);
        *said_fin = true;
    }
    if (random_size(flow, 4) > 1)
        flow_receive(flow);
}

/* What may happen in the middle; 0 is nothing. */
static void befall(unsigned what)
{
    if (what == 1)
        tunnel_cancel(tunnel);
    else if (what == 2)
        close_by_reset(client);
    else
        close_by_reset(peer);
}

static void live_once(unsigned seed)
{
    open_tunnel();
    struct flow up = flow_up(0), down = flow_down(0);
    up.seed = seed;
    down.seed = seed + 1000;
    up.goal = random_size(&up, 3 << random_size(&up, 20));
    down.goal = random_size(&down, 3 << random_size(&down, 20));
    unsigned what = seed % 4, step = 0, when = (unsigned)random_size(&up, 40);
    bool up_fin = false, down_fin = false, befallen = false;
    turn_often_until(1, closed_streams == 2 || (befallen = what && step++ == when) ||
                            (live(&up, &up_fin), live(&down, &down_fin), false));
    if (befallen) {
        befall(what);
        turn_until(closed_streams == 2);
    } else {
        assert_int_equal(result.reason, TUNNEL_ENDED);
        while (!up.ended || !down.ended) {
            flow_receive(&up);
            flow_receive(&down);
        }
        check_flow(&up);
        check_flow(&down);
    }
    if (!befallen || what != 2)
        close(client);
    if (!befallen || what != 3)
        close(peer);
}

static void whatever_comes_all_arrives_or_it_fails(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 60; seed++)
        live_once(seed);
}

/* --- Filters ---------------------------------------------------------------------------------- */

static int pass_on(struct stream *of, struct stream_write *write, struct iovec *sealed)
{
    (void)of;
    if (!write->count)
        return 0;
    *sealed = *write->iov++;
    write->count--;
    write->taken += sealed->iov_len;
    return (int)sealed->iov_len;
}

static int end_of(struct stream *of)
{
    (void)of;
    return STREAM_EOF;
}

static void nothing(struct stream *of)
{
    (void)of;
}

static const struct stream_filter passing = {.received = stream_deliver,
                                             .ended = end_of,
                                             .seal = pass_on,
                                             .sent = nothing,
                                             .shut = nothing,
                                             .closed = nothing};

static void filtered_streams_are_copied(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        open_ends(open_tcp_pair);
        stream_set_filter(&streams[i], &passing, NULL);
        start((struct tunnel_options){.deadline = DEADLINE_NEVER});
        struct flow up = flow_up(BULK_BYTES);
        turn_often_until(1, (assert_null(tunnel->out.splice), flow_step(&up)));
        check_flow(&up);
        end_tunnel();
    }
}

/* --- Time ------------------------------------------------------------------------------------- */

static void ends_when_idle(void **state)
{
    (void)state;
    open_ends(open_tcp_pair);
    start((struct tunnel_options){.idle_timeout_ms = 300, .deadline = DEADLINE_NEVER});
    splice_up();
    await_end(TUNNEL_IDLE);
    assert_int_equal(result.error, -ETIMEDOUT);
    close_ends();
}

static void ends_at_its_deadline(void **state)
{
    (void)state;
    open_ends(open_tcp_pair);
    start((struct tunnel_options){.deadline = io_now_ms(loop) + 50});
    struct flow up = flow_up(SIZE_MAX);
    turn_often_until(1, (flow_step(&up), closed_streams == 2));
    assert_int_equal(result.reason, TUNNEL_DEADLINE);
    close_ends();
}

static void a_reader_that_takes_nothing_is_idle(void **state)
{
    (void)state;
    open_ends(open_tcp_pair);
    start((struct tunnel_options){.idle_timeout_ms = 200, .deadline = DEADLINE_NEVER});
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    await_end(TUNNEL_IDLE);
    close_ends();
}

/* Nothing is received any more, for nothing is taken so fast, yet it goes on. */
static void a_slow_reader_is_not_idle(void **state)
{
    (void)state;
    open_ends(open_tcp_pair);
    setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &(int){32 << 10}, sizeof(int));
    start((struct tunnel_options){.idle_timeout_ms = 300, .deadline = DEADLINE_NEVER});
    struct flow up = flow_up(SIZE_MAX);
    stuff(&up);
    int64_t begin_ms = clock_now_ms(), now_ms;
    for (int64_t read_ms = 0; (now_ms = clock_now_ms() - begin_ms) < 1000;) {
        static char bytes[16 << 10];
        for (; read_ms < now_ms; read_ms += 10)
            up.received += (size_t)(recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0);
        loop_turn(10);
    }
    assert_true(up.received > 40); /* and there is much more */
    assert_non_null(tunnel);
    tunnel_cancel(tunnel);
    await_end(TUNNEL_CANCELLED);
    close_ends();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(carries_words_and_ends),
        ON_BOTH(is_small_while_idle),
        ON_BOTH(bulk_is_spliced_both_ways),
        ON_BOTH(local_sockets_are_spliced),
        ON_BOTH(copies_if_told_to),
        ON_BOTH(small_messages_are_copied_again),
        ON_BOTH(what_dries_up_is_copied_again),
        ON_BOTH(half_closed_ones_are_spliced),
        ON_BOTH(a_reset_that_a_send_has_met_is_no_end),
        ON_BOTH(a_reset_that_a_stuck_send_has_met_is_no_end),
        ON_BOTH(a_slow_reader_holds_a_pipe_at_most),
        ON_BOTH(a_slow_reader_that_said_fin_gets_all),
        ON_BOTH(a_reset_reader_leaves_a_dirty_pipe),
        ON_BOTH(a_reset_source_is_told_of),
        ON_BOTH(a_reset_behind_the_end_is_told_of),
        ON_BOTH(is_cancelled_in_any_state),
        ON_BOTH(counts_what_went_before_a_cut),
        ON_BOTH(copies_without_a_pipe),
        ON_BOTH(copies_without_descriptors),
        ON_BOTH(whatever_comes_all_arrives_or_it_fails),
        ON_BOTH(filtered_streams_are_copied),
        ON_BOTH(ends_when_idle),
        ON_BOTH(ends_at_its_deadline),
        ON_BOTH(a_reader_that_takes_nothing_is_idle),
        ON_BOTH(a_slow_reader_is_not_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
