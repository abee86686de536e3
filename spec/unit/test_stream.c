/* Streams behind filters: writes that wait for the filter's own, and TLS put on what has come
 * already. */
#include "support/loop.h"
#include "support/tls_pair.h"

#include "net/stream.h"
#include "tls/tls_stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct stream stream;
static int peer;
static int result;
static bool done;

static void open_stream(void)
{
    int fds[2];
    open_tcp_pair(fds);
    stream_init(&stream, loop, fds[0]);
    peer = fds[1];
    done = false;
}

static void close_stream(void)
{
    stream_close(&stream);
    turn_until(stream.closed);
    close(peer);
}

/* --- Writes ----------------------------------------------------------------------------------- */

static int pass(struct stream *of, struct stream_write *write, struct iovec *sealed)
{
    (void)of;
    if (!write->count)
        return 0;
    *sealed = *write->iov++;
    write->count--;
    write->taken += sealed->iov_len;
    return (int)sealed->iov_len;
}

static void nothing(struct stream *of)
{
    (void)of;
}

static const struct stream_filter passing = {
    .seal = pass, .sent = nothing, .shut = nothing, .closed = nothing};

static void ignore(struct stream_write *write, int how)
{
    (void)write;
    (void)how;
}

static void send_in_time(void *unused)
{
    struct iovec iov = {(char *)"x", 1};
    (void)unused;
    result = stream_send(&stream, &iov, 1, io_now_ms(loop) + 20);
    done = true;
}

/* A peer that takes nothing, not even what the filter has to say by itself. */
static void a_write_that_waits_ends_in_time(void **state)
{
    static char much[16 << 20];
    struct iovec iov = {much, sizeof(much)};
    struct stream_write own = {.iov = &iov, .count = 1, .done = ignore, .background = true};
    (void)state;
    open_stream();
    stream_set_filter(&stream, &passing, NULL);
    assert_int_equal(stream_write_start(&stream, &own), 0);
    coro_start(send_in_time, NULL);
    turn_until(done);
    assert_int_equal(result, -ETIMEDOUT);
    close_stream();
}

/* --- TLS -------------------------------------------------------------------------------------- */

static struct tls_pair pair;

static void accept_main(void *unused)
{
    char error[TLS_ERROR_MAX_BYTES];
    (void)unused;
    result = tls_stream_accept(&stream, pair.server, NULL, error, DEADLINE_NEVER);
    done = true;
}

static void say(struct tls_session *session)
{
    assert_int_equal(send(peer, session->output.bytes, session->output.len, 0),
                     session->output.len);
    tls_output_release(&session->output);
}

static void hear(struct tls_session *session)
{
    static char bytes[65536];
    ssize_t count = -1;
    turn_until((count = recv(peer, bytes, sizeof(bytes), 0)) > 0);
    session->input = slice_of(bytes, (size_t)count);
}

/* Shakes hands; the last flight of TLS 1.3 is not sent. */
static void shake_hands(struct tls_session *session)
{
    assert_int_equal(tls_connect(session, pair.client, "one.example", NULL), 0);
    while (tls_handshake(session) == -EAGAIN) {
        if (session->output.len)
            say(session);
        hear(session);
    }
    assert_string_equal(tls_error(session), "");
}

static void begin_tls(enum tls_library library, struct tls_session *client)
{
    pair = (struct tls_pair){.server_library = library, .client_library = TLS_OPENSSL};
    tls_pair_prepare(&pair);
    open_stream();
    stream_start(&stream);
    coro_start(accept_main, NULL);
    loop_turn(0);
    shake_hands(client);
}

static void end_tls(struct tls_session *client)
{
    close_stream();
    tls_end(client);
    tls_pair_end(&pair);
}

static void check_all_at_once(enum tls_library library, bool in_order)
{
    struct tls_session client;
    begin_tls(library, &client);
    assert_int_equal(tls_write(&client, "hello", 5, 100), 0);
    if (in_order)
        tls_close(&client);
    say(&client);
    shutdown(peer, SHUT_WR);
    turn_until(done);
    assert_int_equal(result, 0);
    turn_until(stream.end != STREAM_OPEN);
    assert_non_null(stream.first);
    assert_int_equal(stream.first->len, 5);
    assert_memory_equal(stream.first->data, "hello", 5);
    assert_int_equal(stream.end, in_order ? STREAM_EOF : -ECONNRESET);
    end_tls(&client);
}

/* The end of the handshake, a request and the end of the connection in one segment. */
static void nothing_is_lost_behind_a_handshake(void **state)
{
    (void)state;
    for (int library = 0; library < TLS_LIBRARY_COUNT; library++) {
        check_all_at_once((enum tls_library)library, true);
        check_all_at_once((enum tls_library)library, false);
    }
}

static void heard(struct stream *of)
{
    done = of->end == -ECONNRESET;
}

/* Who has said that nothing more comes may still go away. */
static void a_reset_is_seen_behind_the_end(void **state)
{
    struct tls_session client;
    (void)state;
    begin_tls(TLS_OPENSSL, &client);
    say(&client);
    turn_until(done);
    tls_close(&client);
    say(&client);
    turn_until(stream.end == STREAM_EOF);
    done = false;
    stream.on_arrival = heard;
    stream.watch_hangup = true;
    close_by_reset(peer);
    peer = open_socket();
    turn_until(done);
    end_tls(&client);
}

/* What a stream ends with whose peer has gone before a send. */
static int end_met_by_a_send(bool said_fin)
{
    struct iovec iov = {(char *)"x", 1};
    struct stream_write write = {.iov = &iov, .count = 1, .done = ignore};
    open_stream();
    stream_start(&stream);
    loop_turn_idle();
    if (said_fin)
        shutdown(peer, SHUT_WR);
    close_by_reset(peer);
    peer = open_socket();
    assert_int_equal(stream_write_start(&stream, &write), 0);
    turn_until(stream.end != STREAM_OPEN && !stream.write);
    int end = stream.end;
    close_stream();
    return end;
}

/* The kernel tells of it once. If that is to the send, what is received looks like a FIN. */
static void a_reset_is_no_end_to_who_receives(void **state)
{
    (void)state;
    assert_int_equal(end_met_by_a_send(false), -ECONNRESET);
    assert_int_equal(end_met_by_a_send(true), STREAM_EOF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_write_that_waits_ends_in_time),
        ON_BOTH(nothing_is_lost_behind_a_handshake),
        ON_BOTH(a_reset_is_seen_behind_the_end),
        ON_BOTH(a_reset_is_no_end_to_who_receives),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    test_certificates_free();
    return failures;
}
