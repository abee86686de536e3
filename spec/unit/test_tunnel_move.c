/* Tunnels that move: whatever is under way when they are frozen, every byte arrives once and in its
 * place, whether they go on here or there, and as often as it happens. */
#include "support/loop.h"

#include "net/tunnel_internal.h"
#include "net/tunnel_state.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NOISE_BYTES = 1 << 20, MOVES = 60 };

/* A tunnel with its streams, as one process has it. */
struct side {
    struct stream client;
    struct stream peer;
    struct tunnel *tunnel; /* NULL when it has ended */
    struct tunnel_result result;
    struct tunnel_freeze freeze;
    bool frozen;
    bool over;
    unsigned closed;
};

static struct side *side; /* that has the tunnel now */
static int client, peer;  /* the far ends */
static char noise[NOISE_BYTES];

/* --- Sides ------------------------------------------------------------------------------------ */

static void done(const struct tunnel_result *result, void *owner)
{
    struct side *of = owner;
    of->result = *result;
    of->tunnel = NULL;
}

static void closed(struct stream *stream)
{
    struct side *of = stream->owner;
    of->closed++;
}

static void frozen(struct tunnel_freeze *freeze)
{
    struct side *of = container_of(freeze, struct side, freeze);
    assert_false(of->frozen || of->over);
    of->frozen = true;
}

static void over(struct tunnel_freeze *freeze)
{
    struct side *of = container_of(freeze, struct side, freeze);
    assert_false(of->over);
    of->over = true;
}

static struct side *create_side(int client_fd, int peer_fd)
{
    struct side *made = calloc(1, sizeof(*made));
    assert_non_null(made);
    made->freeze = (struct tunnel_freeze){.frozen = frozen, .over = over};
    stream_init(&made->client, loop, client_fd);
    stream_init(&made->peer, loop, peer_fd);
    made->client.on_closed = made->peer.on_closed = closed;
    made->client.owner = made->peer.owner = made;
    made->client.movable = made->peer.movable = true;
    return made;
}

static void open_tunnel(struct tunnel_options options)
{
    int fds[2][2];
    unsigned seed = 3;
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)rand_r(&seed);
    open_tcp_pair(fds[0]);
    open_tcp_pair(fds[1]);
    client = fds[0][1];
    peer = fds[1][1];
    side = create_side(fds[0][0], fds[1][0]);
    stream_start(&side->client);
    stream_start(&side->peer);
    side->tunnel = tunnel_start(&side->client, &side->peer, &options, done, side);
    assert_non_null(side->tunnel);
    turn_until(tunnel_movable(side->tunnel));
}

static void open_endless(void)
{
    open_tunnel((struct tunnel_options){.deadline = DEADLINE_NEVER});
}

static void await_end(enum tunnel_reason reason)
{
    turn_until(side->closed == 2);
    assert_null(side->tunnel);
    assert_int_equal(side->result.reason, reason);
    free(side);
    side = NULL;
}

static void end_tunnel(void)
{
    shutdown(client, SHUT_WR);
    shutdown(peer, SHUT_WR);
    await_end(TUNNEL_ENDED);
    close(client);
    close(peer);
}

/* --- Moving ----------------------------------------------------------------------------------- */

static void freeze(void)
{
    side->frozen = side->over = false;
    assert_true(tunnel_movable(side->tunnel));
    assert_true(tunnel_freeze(side->tunnel, &side->freeze));
    assert_false(tunnel_movable(side->tunnel));
    turn_often_until(1, side->frozen || side->over);
}

/* To another side, by way of what another process would get. */
static void move(void)
{
    static char message[TUNNEL_STATE_MAX_BYTES];
    struct tunnel_state state = {.kind = TUNNEL_OF_HTTP, .listener = SLICE("listener")}, read;
    const char *why;
    int client_fd, peer_fd;
    freeze();
    assert_true(side->frozen);
    tunnel_describe(side->tunnel, &state, &client_fd, &peer_fd);
    int len = tunnel_state_write(&state, message);
    assert_true(len > 0);
    assert_int_equal(tunnel_state_parse(slice_of(message, (size_t)len), &read, &why), 0);
    int file = tunnel_write_pending(side->tunnel);
    assert_true(file >= 0);
    struct side *other = create_side(dup(client_fd), dup(peer_fd));
    other->tunnel = tunnel_adopt(&other->client, &other->peer, &read, &other->freeze, done, other);
    assert_non_null(other->tunnel);
    assert_int_equal(tunnel_read_pending(other->tunnel, &read, file), 0);
    close(file);
    tunnel_leave(side->tunnel);
    tunnel_thaw(other->tunnel);
    await_end(TUNNEL_LEFT);
    side = other;
}

/* --- What flows ------------------------------------------------------------------------------- */

/* Bytes whose place in the stream says what they are. */
struct flow {
    int from;
    int to;
    size_t sent;
    size_t received;
    unsigned seed;
    size_t piece_max;
};

static bool flow_send(struct flow *flow)
{
    size_t at = flow->sent % NOISE_BYTES;
    size_t size = 1 + (size_t)rand_r(&flow->seed) % flow->piece_max;
    if (size > NOISE_BYTES - at)
        size = NOISE_BYTES - at;
    ssize_t count = send(flow->from, noise + at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    flow->sent += count > 0 ? (size_t)count : 0;
    return count > 0;
}

static bool flow_receive(struct flow *flow)
{
    static char bytes[200000];
    size_t at = flow->received % NOISE_BYTES;
    size_t size = NOISE_BYTES - at < sizeof(bytes) ? NOISE_BYTES - at : sizeof(bytes);
    ssize_t count = recv(flow->to, bytes, size, MSG_DONTWAIT);
    if (count <= 0)
        return false;
    assert_memory_equal(bytes, noise + at, count);
    flow->received += (size_t)count;
    return true;
}

static bool flow_arrived(struct flow *flow)
{
    while (flow_receive(flow))
        continue;
    return flow->received == flow->sent;
}

static struct flow flow_up(size_t piece_max)
{
    return (struct flow){.from = client, .to = peer, .seed = 1, .piece_max = piece_max};
}

static struct flow flow_down(size_t piece_max)
{
    return (struct flow){.from = peer, .to = client, .seed = 2, .piece_max = piece_max};
}

/* Sends until nothing is taken any more. */
static void stuff(struct flow *flow)
{
    for (unsigned idle_turns = 0; idle_turns < 20;) {
        loop_turn(1);
        idle_turns = flow_send(flow) ? 0 : idle_turns + 1;
    }
}

static void check_counts(const struct flow *up, const struct flow *down)
{
    uint64_t out = side->tunnel->out.bytes, back = side->tunnel->back.bytes;
    assert_true(out == up->received);
    assert_true(back == down->received);
}

/* Each turn some of both, with readers that lag now and then. */
static void run_both(struct flow *up, struct flow *down, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        flow_send(up);
        flow_send(down);
        loop_turn(0);
        if (rand_r(&up->seed) % 4)
            flow_receive(up);
        if (rand_r(&down->seed) % 4)
            flow_receive(down);
    }
}

/* --- Tests ------------------------------------------------------------------------------------ */

/* Asks both, since asking reads what has come. */
static bool both_arrived(struct flow *up, struct flow *down)
{
    bool up_has = flow_arrived(up);
    bool down_has = flow_arrived(down);
    return up_has && down_has;
}

static void move_amid(size_t up_max, size_t down_max, bool and_back)
{
    open_endless();
    struct flow up = flow_up(up_max), down = flow_down(down_max);
    for (unsigned i = 0; i < MOVES; i++) {
        run_both(&up, &down, (unsigned)rand_r(&up.seed) % 40);
        if (and_back && i % 2) {
            freeze();
            tunnel_thaw(side->tunnel);
        } else {
            move();
        }
    }
    turn_often_until(1, both_arrived(&up, &down) && up.sent && down.sent);
    loop_turn_idle();
    check_counts(&up, &down);
    end_tunnel();
}

static void moves_amid_words(void **state)
{
    (void)state;
    move_amid(100, 2000, false);
}

static void moves_amid_bulk(void **state)
{
    (void)state;
    move_amid(200000, 200000, false);
    move_amid(200000, 100, true);
}

static void moves_with_all_buffers_full(void **state)
{
    (void)state;
    open_endless();
    struct flow up = flow_up(200000), down = flow_down(200000);
    for (unsigned i = 0; i < 5; i++) {
        stuff(&up);
        stuff(&down);
        move();
        for (unsigned j = 0; j < 3; j++)
            flow_receive(&up);
        move();
    }
    turn_often_until(1, both_arrived(&up, &down));
    loop_turn_idle();
    check_counts(&up, &down);
    end_tunnel();
}

static void await_splice(struct flow *up)
{
    turn_often_until(1, (flow_send(up), flow_receive(up), side->tunnel->out.splice != NULL));
}

static void moves_with_a_full_pipe(void **state)
{
    (void)state;
    open_endless();
    struct flow up = flow_up(200000), down = flow_down(10);
    await_splice(&up);
    turn_often_until(1,
                     (flow_send(&up), side->tunnel->out.splice && side->tunnel->out.splice->pipe));
    stuff(&up);
    move();
    turn_often_until(1, flow_arrived(&up));
    flow_send(&down);
    turn_often_until(1, flow_arrived(&down));
    await_splice(&up); /* and again */
    move();
    turn_often_until(1, flow_arrived(&up));
    loop_turn_idle();
    check_counts(&up, &down);
    end_tunnel();
}

static void moves_half_closed(void **state)
{
    (void)state;
    open_endless();
    struct flow up = flow_up(200000), down = flow_down(200000);
    char byte;
    stuff(&up);
    shutdown(client, SHUT_WR); /* behind bytes that wait */
    move();
    turn_often_until(1, flow_arrived(&up));
    turn_until(recv(peer, &byte, 1, MSG_DONTWAIT) == 0);
    move(); /* and once it has been carried over */
    stuff(&down);
    move();
    shutdown(peer, SHUT_WR);
    turn_often_until(1, flow_arrived(&down));
    await_end(TUNNEL_ENDED);
    assert_int_equal(recv(client, &byte, 1, 0), 0);
    close(client);
    close(peer);
}

static void keeps_its_times(void **state)
{
    (void)state;
    open_tunnel((struct tunnel_options){.idle_timeout_ms = 400, .deadline = DEADLINE_NEVER});
    int64_t begun_ms = clock_now_ms();
    for (unsigned i = 0; i < 5; i++)
        move();
    await_end(TUNNEL_IDLE);
    assert_in_range(clock_now_ms() - begun_ms, 300, PATIENCE_MS);
    close(client);
    close(peer);
    open_tunnel((struct tunnel_options){.deadline = clock_now_ms() + 200});
    move();
    await_end(TUNNEL_DEADLINE);
    close(client);
    close(peer);
}

static void times_that_are_still_to_come_are_now(void **state)
{
    (void)state;
    struct tunnel_state told = {
        .deadline_ms = DEADLINE_NEVER, .moved_ms = INT64_MAX, .idle_timeout_ms = 100};
    int client_fd, peer_fd;
    open_endless();
    freeze();
    struct tunnel_state known = told;
    tunnel_describe(side->tunnel, &known, &client_fd, &peer_fd);
    struct side *other = create_side(dup(client_fd), dup(peer_fd));
    other->tunnel = tunnel_adopt(&other->client, &other->peer, &told, &other->freeze, done, other);
    tunnel_leave(side->tunnel);
    tunnel_thaw(other->tunnel);
    await_end(TUNNEL_LEFT);
    side = other;
    await_end(TUNNEL_IDLE);
    close(client);
    close(peer);
}

static void what_is_given_up_leaves_the_connections_alone(void **state)
{
    (void)state;
    struct tunnel_state told = {.deadline_ms = DEADLINE_NEVER};
    open_endless();
    struct flow up = flow_up(200000), down = flow_down(100);
    stuff(&up);
    freeze();
    for (unsigned i = 0; i < 2; i++) {
        int client_fd, peer_fd;
        tunnel_describe(side->tunnel, &told, &client_fd, &peer_fd);
        struct side *other = create_side(dup(client_fd), dup(peer_fd));
        other->tunnel =
            tunnel_adopt(&other->client, &other->peer, &told, &other->freeze, done, other);
        if (i == 0)
            tunnel_leave(other->tunnel);
        else
            tunnel_cancel(other->tunnel);
        turn_until(other->closed == 2);
        assert_int_equal(other->result.reason, TUNNEL_LEFT);
        assert_true(other->over == (i == 1));
        free(other);
    }
    tunnel_thaw(side->tunnel);
    turn_often_until(1, flow_arrived(&up));
    flow_send(&down);
    turn_often_until(1, flow_arrived(&down));
    end_tunnel();
}

static void ends_while_it_is_frozen(void **state)
{
    (void)state;
    open_endless();
    struct flow up = flow_up(200000);
    stuff(&up);
    freeze();
    tunnel_cancel(side->tunnel);
    assert_true(side->over);
    await_end(TUNNEL_CANCELLED);
    close(client);
    close(peer);
    open_endless();
    up = flow_up(200000);
    stuff(&up);
    assert_true(tunnel_freeze(side->tunnel, &side->freeze));
    tunnel_cancel(side->tunnel); /* with what was under way still there */
    assert_true(side->over && !side->frozen);
    await_end(TUNNEL_CANCELLED);
    close(client);
    close(peer);
}

static void one_that_fails_does_not_move(void **state)
{
    (void)state;
    open_endless();
    assert_true(tunnel_freeze(side->tunnel, &side->freeze));
    close_by_reset(client);
    turn_often_until(1, side->frozen || side->over);
    if (side->frozen)
        tunnel_thaw(side->tunnel);
    await_end(TUNNEL_CLIENT_FAILED);
    close(peer);
}

static void files_of_the_wrong_size_are_refused(void **state)
{
    (void)state;
    open_endless();
    struct flow up = flow_up(200000);
    stuff(&up);
    freeze();
    struct tunnel_state told = {.deadline_ms = DEADLINE_NEVER};
    int client_fd, peer_fd;
    tunnel_describe(side->tunnel, &told, &client_fd, &peer_fd);
    int file = tunnel_write_pending(side->tunnel);
    assert_true(told.client_pending > 1 && ftruncate(file, told.client_pending - 1) == 0);
    struct side *other = create_side(dup(client_fd), dup(peer_fd));
    other->tunnel = tunnel_adopt(&other->client, &other->peer, &told, &other->freeze, done, other);
    assert_int_equal(tunnel_read_pending(other->tunnel, &told, file), -EPROTO);
    close(file);
    tunnel_leave(other->tunnel);
    turn_until(other->closed == 2);
    free(other);
    tunnel_thaw(side->tunnel);
    turn_often_until(1, flow_arrived(&up));
    end_tunnel();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(moves_amid_words),
        ON_BOTH(moves_amid_bulk),
        ON_BOTH(moves_with_all_buffers_full),
        ON_BOTH(moves_with_a_full_pipe),
        ON_BOTH(moves_half_closed),
        ON_BOTH(keeps_its_times),
        ON_BOTH(times_that_are_still_to_come_are_now),
        ON_BOTH(what_is_given_up_leaves_the_connections_alone),
        ON_BOTH(ends_while_it_is_frozen),
        ON_BOTH(one_that_fails_does_not_move),
        ON_BOTH(files_of_the_wrong_size_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
