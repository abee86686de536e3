/* Tunnels on their way from an old worker to a new one, both in this process, and what becomes of
 * them when the other side refuses, is late, dies or talks nonsense: nothing is lost. */
#include "support/loop.h"

#include "http/connection.h"
#include "net/tunnel.h"
#include "net/tunnel_state.h"
#include "proxy/peer.h"
#include "server/adopt.h"
#include "server/hand_over.h"
#include "server/tunnel_socket.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MANY = 60, BULK_BYTES = 4 << 20 };

#define KEY "listener"

/* A worker's part of it. */
struct side {
    struct acceptors acceptors;
    struct acceptor *acceptor;
};

static struct side old, new;
static struct hand_over hand_over;
static struct adopters adopters;
static int offers; /* the new worker's end of the socket, where no struct adopters has it; or -1 */

/* --- Workers ---------------------------------------------------------------------------------- */

static void keep(struct service *service)
{
    (void)service;
}

static struct service service = {.retain = keep, .release = keep};

static void open_side(struct side *side)
{
    struct limits none = {.shared = NULL};
    struct listener_config config;
    struct sockaddr_in address;
    acceptors_init(&side->acceptors, loop, &none);
    acceptors_add(&side->acceptors, KEY, open_listener(&address));
    side->acceptor = acceptors_find(&side->acceptors, KEY);
    assert_non_null(side->acceptor);
    listener_config_init(&config);
    http_server_set_service(&side->acceptor->server, &service, &config);
}

static unsigned count(const struct side *side)
{
    return side->acceptor->server.connection_count;
}

static void close_side(struct side *side)
{
    http_server_abort(&side->acceptor->server);
    turn_until(count(side) == 0);
    acceptor_stop(side->acceptor);
    loop_turn_idle();
    acceptors_sweep(&side->acceptors);
    assert_true(list_empty(&side->acceptors.list));
}

/* `adopting`: the new worker is the real one, else the test plays it. */
static void open_workers(bool adopting)
{
    int sockets[2];
    signal(SIGPIPE, SIG_IGN);
    open_side(&old);
    open_side(&new);
    assert_int_equal(tunnel_socket_pair(sockets), 0);
    hand_over_init(&hand_over, loop, &old.acceptors);
    hand_over_begin(&hand_over, sockets[0]);
    adopters_init(&adopters, loop, &new.acceptors, adopting ? sockets[1] : -1);
    offers = adopting ? -1 : sockets[1];
}

static void close_workers(void)
{
    hand_over_stop(&hand_over);
    adopters_stop(&adopters);
    if (offers >= 0)
        close(offers);
    close_side(&old);
    close_side(&new);
    turn_until(!hand_over_busy(&hand_over) && !adopters_busy(&adopters));
}

/* --- Tunnels ---------------------------------------------------------------------------------- */

struct ends {
    int client;
    int peer;
};

static void nothing(struct tunnel_freeze *freeze)
{
    (void)freeze;
}

/* In the old worker. */
static struct ends open_tunnel(void)
{
    static struct tunnel_freeze none = {.frozen = nothing, .over = nothing};
    const struct tunnel_state state = {.kind = TUNNEL_OF_HTTP, .deadline_ms = DEADLINE_NEVER};
    int client[2], peer[2];
    open_tcp_pair(client);
    open_tcp_pair(peer);
    struct connection *connection = http_server_adopt(&old.acceptor->server, client[0],
                                                      &state.client_remote, &state.client_local);
    assert_non_null(connection);
    struct stream *stream = peer_adopt_stream(loop, peer[0], &state.peer_remote);
    assert_non_null(stream);
    struct tunnel *tunnel = h1_connection_adopt(connection, stream, &state, &none, NULL);
    assert_non_null(tunnel);
    tunnel_thaw(tunnel);
    return (struct ends){client[1], peer[1]};
}

static void say(int from, int to)
{
    static const char word[] = "word";
    char heard[sizeof(word)] = "";
    assert_int_equal(send(from, word, sizeof(word), 0), sizeof(word));
    turn_until(recv(to, heard, sizeof(heard), MSG_DONTWAIT) == sizeof(word));
    assert_string_equal(heard, word);
}

static void talk(struct ends ends)
{
    say(ends.client, ends.peer);
    say(ends.peer, ends.client);
}

static void close_ends(struct ends ends)
{
    close(ends.client);
    close(ends.peer);
}

/* The byte at a place of a stream. */
static char byte_at(size_t place)
{
    return (char)(place * 31 >> 3);
}

/* Sends until nothing is taken; returns how much was. */
static size_t stuff(int from)
{
    static char bytes[BULK_BYTES];
    size_t sent = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = byte_at(i);
    for (unsigned idle_turns = 0; idle_turns < 20;) {
        ssize_t taken = send(from, bytes + sent, sizeof(bytes) - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += taken > 0 ? (size_t)taken : 0;
        idle_turns = taken > 0 ? 0 : idle_turns + 1;
        loop_turn(1);
    }
    return sent;
}

static void expect_all(int to, size_t expected)
{
    static char bytes[1 << 16];
    for (size_t got = 0; got < expected;) {
        ssize_t came = recv(to, bytes, sizeof(bytes), MSG_DONTWAIT);
        assert_true(came > 0 || (came < 0 && errno == EAGAIN));
        for (ssize_t i = 0; i < came; i++)
            assert_true(bytes[i] == byte_at(got + (size_t)i));
        got += came > 0 ? (size_t)came : 0;
        loop_turn(1);
    }
}

/* --- The other side, as the test plays it ------------------------------------------------------
 */

static char message[TUNNEL_STATE_MAX_BYTES];

static struct offer_fds receive_offer(int *len)
{
    struct offer_fds fds;
    turn_until((*len = tunnel_socket_receive(offers, message, sizeof(message), &fds)) > 0);
    return fds;
}

static void expect_no_offer(void)
{
    struct offer_fds fds;
    for (int64_t until_ms = clock_now_ms() + 250; clock_now_ms() < until_ms;)
        loop_turn(20);
    assert_int_equal(tunnel_socket_receive(offers, message, sizeof(message), &fds), -EAGAIN);
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void many_move(void **state)
{
    (void)state;
    struct ends ends[MANY];
    size_t sent[MANY];
    open_workers(true);
    for (unsigned i = 0; i < MANY; i++) {
        ends[i] = open_tunnel();
        sent[i] = i % 20 ? 0 : stuff(ends[i].client);
    }
    turn_until(count(&old) == 0 && !hand_over_busy(&hand_over) && !adopters_busy(&adopters));
    assert_int_equal(count(&new), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        expect_all(ends[i].peer, sent[i]);
        talk(ends[i]);
    }
    close_workers();
    for (unsigned i = 0; i < MANY; i++) {
        char byte;
        assert_int_equal(recv(ends[i].client, &byte, 1, 0), -1); /* cut off by the abort */
        assert_int_equal(errno, ECONNRESET);
        close_ends(ends[i]);
    }
}

static void refuse(struct offer_fds fds)
{
    offer_fds_close(&fds);
}

static void talk_nonsense(struct offer_fds fds)
{
    assert_int_equal(tunnel_socket_say(fds.channel, 'x'), 0);
    turn_until(recv(fds.channel, message, 1, MSG_PEEK | MSG_DONTWAIT) == 0);
    offer_fds_close(&fds);
}

static void take_and_die(struct offer_fds fds)
{
    assert_int_equal(tunnel_socket_say(fds.channel, TUNNEL_TAKEN), 0);
    offer_fds_close(&fds);
}

static void say_nothing(struct offer_fds fds)
{
    turn_until(recv(fds.channel, message, 1, MSG_PEEK | MSG_DONTWAIT) == 0);
    offer_fds_close(&fds);
}

/* Whatever the new worker does but take it. */
static void what_is_not_taken_stays(void **state)
{
    (void)state;
    void (*answers[])(struct offer_fds fds) = {refuse, talk_nonsense, take_and_die, say_nothing};
    for (unsigned i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        int len;
        open_workers(false);
        hand_over.answer_ms = answers[i] == say_nothing ? 50 : PATIENCE_MS;
        struct ends ends = open_tunnel();
        size_t sent = stuff(ends.client);
        answers[i](receive_offer(&len));
        turn_until(!hand_over_busy(&hand_over));
        assert_int_equal(count(&old), 1);
        expect_all(ends.peer, sent);
        talk(ends);
        expect_no_offer(); /* once is enough */
        close_workers();
        close_ends(ends);
    }
}

static void one_at_a_time_is_tried_behind_a_late_answer(void **state)
{
    (void)state;
    struct ends ends[MANY];
    struct offer_fds fds;
    open_workers(false);
    hand_over.answer_ms = 50;
    for (unsigned i = 0; i < MANY; i++)
        ends[i] = open_tunnel();
    turn_until(hand_over.at_once == 1);
    hand_over.answer_ms = PATIENCE_MS; /* of the one that is tried when all others are late */
    turn_until(hand_over.offer_count == 1);
    loop_turn_idle();
    unsigned offered = 0;
    while (tunnel_socket_receive(offers, message, sizeof(message), &fds) > 0) {
        offer_fds_close(&fds); /* the last of them refuses the one that is tried */
        offered++;
    }
    assert_in_range(offered, 2, MANY - 1);
    adopters_init(&adopters, loop, &new.acceptors, offers);
    offers = -1;
    turn_until(count(&old) == offered);
    for (unsigned i = 0; i < MANY; i++)
        talk(ends[i]);
    close_workers();
    for (unsigned i = 0; i < MANY; i++)
        close_ends(ends[i]);
}

static void stays_if_nobody_listens(void **state)
{
    (void)state;
    open_workers(false);
    close(offers);
    offers = -1;
    struct ends ends = open_tunnel();
    size_t sent = stuff(ends.peer);
    expect_all(ends.client, sent);
    talk(ends);
    assert_int_equal(count(&old), 1);
    close_workers();
    close_ends(ends);
}

/* More offers than the socket holds, all read later. */
static void a_full_socket_is_waited_for(void **state)
{
    (void)state;
    struct ends ends[MANY];
    open_workers(false);
    int small = 1;
    setsockopt(hand_over.socket, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    for (unsigned i = 0; i < MANY; i++)
        ends[i] = open_tunnel();
    for (unsigned i = 0; i < 10; i++)
        loop_turn(10);
    adopters_init(&adopters, loop, &new.acceptors, offers);
    offers = -1;
    turn_until(count(&old) == 0);
    for (unsigned i = 0; i < MANY; i++)
        talk(ends[i]);
    close_workers();
    for (unsigned i = 0; i < MANY; i++)
        close_ends(ends[i]);
}

/* The new worker has taken it, but the old one does not let go: it dies, say. */
static void what_is_not_given_is_left_alone(void **state)
{
    (void)state;
    int len, channels[2], sockets[2];
    open_workers(false);
    struct ends ends = open_tunnel();
    struct offer_fds fds = receive_offer(&len);
    assert_int_equal(tunnel_socket_pair(channels), 0);
    assert_int_equal(tunnel_socket_pair(sockets), 0);
    adopters_init(&adopters, loop, &new.acceptors, sockets[1]);
    struct offer_fds copy = {fds.client, fds.peer, channels[1], -1};
    assert_int_equal(tunnel_socket_offer(sockets[0], slice_of(message, (size_t)len), &copy), 0);
    turn_until(tunnel_socket_hear(channels[0]) == TUNNEL_TAKEN);
    assert_int_equal(count(&new), 1);
    assert_int_equal(send(ends.client, "unread", 6, 0), 6);
    loop_turn_idle();
    close(channels[0]);
    close(channels[1]);
    turn_until(count(&new) == 0);
    offer_fds_close(&fds); /* and so the first offer is refused */
    turn_until(recv(ends.peer, message, 6, MSG_DONTWAIT) == 6);
    talk(ends);
    close(sockets[0]);
    close_workers();
    close_ends(ends);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static char bytes[TUNNEL_STATE_MAX_BYTES];
    struct tunnel_state wrong[4];
    const char *why;
    int len, sockets[2];
    open_workers(false);
    struct ends ends = open_tunnel();
    struct offer_fds fds = receive_offer(&len);
    assert_int_equal(tunnel_socket_pair(sockets), 0);
    adopters_init(&adopters, loop, &new.acceptors, sockets[1]);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(tunnel_state_parse(slice_of(message, (size_t)len), &wrong[i], &why), 0);
    wrong[0].listener = SLICE("another");
    wrong[1].client_pending = 1; /* without a file */
    wrong[2].kind = TUNNEL_OF_LAYER4;
    wrong[2].logs[0] = (struct tunnel_log){.format = 1, .target = SLICE("/no/such/directory/log")};
    wrong[2].log_count = 1;
    wrong[3].kind = (enum tunnel_kind)9;
    for (unsigned i = 0; i < 4; i++) {
        int channels[2];
        assert_int_equal(tunnel_socket_pair(channels), 0);
        int bytes_len = tunnel_state_write(&wrong[i], bytes);
        struct offer_fds copy = {fds.client, fds.peer, channels[1], -1};
        assert_int_equal(tunnel_socket_offer(sockets[0], slice_of(bytes, (size_t)bytes_len), &copy),
                         0);
        close(channels[1]);
        turn_until(tunnel_socket_hear(channels[0]) == 0);
        assert_int_equal(count(&new), 0);
        close(channels[0]);
    }
    assert_int_equal(send(sockets[0], "nonsense", 8, 0), 8);
    loop_turn_idle();
    /* And then the true one. */
    assert_int_equal(tunnel_socket_offer(sockets[0], slice_of(message, (size_t)len), &fds), 0);
    offer_fds_close(&fds);
    turn_until(count(&new) == 1 && count(&old) == 0);
    talk(ends);
    close(sockets[0]);
    close_workers();
    close_ends(ends);
}

static void a_client_that_leaves_meanwhile_is_gone(void **state)
{
    (void)state;
    int len;
    open_workers(false);
    struct ends ends = open_tunnel();
    struct offer_fds fds = receive_offer(&len);
    close_by_reset(ends.client);
    loop_turn_idle();
    offer_fds_close(&fds);
    turn_until(count(&old) == 0 && !hand_over_busy(&hand_over));
    turn_until(recv(ends.peer, message, 1, MSG_DONTWAIT) <= 0 && errno == ECONNRESET);
    close(ends.peer);
    close_workers();
}

static void the_end_of_a_worker_ends_offers(void **state)
{
    (void)state;
    struct ends ends[MANY];
    open_workers(false);
    for (unsigned i = 0; i < MANY; i++)
        ends[i] = open_tunnel();
    turn_until(hand_over_busy(&hand_over));
    loop_turn(1);
    close_workers();
    for (unsigned i = 0; i < MANY; i++)
        close_ends(ends[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(many_move),
        ON_BOTH(what_is_not_taken_stays),
        ON_BOTH(one_at_a_time_is_tried_behind_a_late_answer),
        ON_BOTH(stays_if_nobody_listens),
        ON_BOTH(a_full_socket_is_waited_for),
        ON_BOTH(what_is_not_given_is_left_alone),
        ON_BOTH(nonsense_is_refused),
        ON_BOTH(a_client_that_leaves_meanwhile_is_gone),
        ON_BOTH(the_end_of_a_worker_ends_offers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
