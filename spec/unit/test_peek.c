/* Looking at what a stream has received: all stays queued, whatever buffers it came in. */
#include "support/loop.h"

#include "net/peek.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUFFER = 4096,
    PIECE = 700,
    BUFFERS = 16,
    HELD = BUFFERS / 4 + 1, /* of these: they count as scarce */
};

static struct stream stream;
static int peer;
static int result;
static bool done;
static int64_t wait_ms;

static void open_stream_with(struct io_options options)
{
    int fds[2];
    options.buffer_bytes = BUFFER;
    loop_reopen(options);
    open_tcp_pair(fds);
    stream_init(&stream, loop, fds[0]);
    stream_start(&stream);
    peer = fds[1];
    wait_ms = PATIENCE_MS;
}

static void open_stream(void)
{
    open_stream_with((struct io_options){0});
}

static void close_stream(void)
{
    stream_close(&stream);
    turn_until(stream.closed);
    close(peer);
}

static void wait_main(void *unused)
{
    (void)unused;
    result = peek_wait(&stream, io_now_ms(loop) + wait_ms);
    done = true;
}

static void start_waiting(void)
{
    done = false;
    coro_start(wait_main, NULL);
}

static int wait_for_more(void)
{
    start_waiting();
    turn_until(done);
    return result;
}

/* Puts bytes into the queue, each piece in a buffer of its own. */
static void queue(size_t piece, unsigned count)
{
    static char bytes[BUFFER];
    for (unsigned i = 0; i < count; i++) {
        memset(bytes, 'a' + (int)i, piece);
        struct io_buf *buf = io_buf_copy(bytes, (uint32_t)piece);
        assert_non_null(buf);
        stream_deliver(&stream, buf);
    }
}

static void assert_queued(size_t piece, unsigned count)
{
    static char bytes[4 * BUFFER];
    assert_int_equal(peek_len(&stream), piece * count);
    assert_int_equal(peek_copy(&stream, bytes, sizeof(bytes)), piece * count);
    for (size_t at = 0; at < piece * count; at++) {
        assert_int_equal(bytes[at], 'a' + (int)(at / piece));
        assert_int_equal(*peek_at(&stream, at).ptr, bytes[at]);
    }
    assert_int_equal(peek_at(&stream, piece * count).len, 0);
}

static void small_buffers_leave_room_for_more(void **state)
{
    (void)state;
    open_stream();
    queue(PIECE, STREAM_QUEUE_MAX);
    start_waiting();
    turn_until(stream.queued == 1); /* in one buffer, while it waits */
    assert_int_equal(send(peer, "x", 1, 0), 1);
    turn_until(done);
    assert_int_equal(result, 1);
    assert_int_equal(peek_len(&stream), PIECE * STREAM_QUEUE_MAX + 1);
    assert_int_equal(*peek_at(&stream, PIECE * STREAM_QUEUE_MAX).ptr, 'x');
    close_stream();
}

static void nothing_is_lost_or_moved(void **state)
{
    (void)state;
    open_stream();
    queue(PIECE, STREAM_QUEUE_MAX);
    assert_queued(PIECE, STREAM_QUEUE_MAX);
    wait_ms = 20;
    assert_int_equal(wait_for_more(), -ETIMEDOUT);
    assert_int_equal(stream.queued, 1);
    assert_queued(PIECE, STREAM_QUEUE_MAX);
    close_stream();
}

static void a_full_queue_is_told_of(void **state)
{
    (void)state;
    open_stream();
    queue(BUFFER / 2, STREAM_QUEUE_MAX);
    assert_int_equal(wait_for_more(), -ENOBUFS);
    assert_queued(BUFFER / 2, STREAM_QUEUE_MAX);
    close_stream();
}

static void the_end_is_told_of(void **state)
{
    (void)state;
    open_stream();
    queue(PIECE, 1);
    shutdown(peer, SHUT_WR);
    assert_int_equal(wait_for_more(), STREAM_EOF);
    assert_queued(PIECE, 1);
    close_stream();

    open_stream();
    close_by_reset(peer);
    peer = open_socket();
    assert_int_equal(wait_for_more(), -ECONNRESET);
    close_stream();
}

/* While many buffers are held, nothing is received ahead of a reader beyond the first piece: it
 * must go on when somebody waits for more. */
static void scarce_buffers_stop_nobody_who_waits(void **state)
{
    (void)state;
    struct io_buf *held[HELD];
    open_stream_with((struct io_options){.buffer_max_bytes = (uint64_t)BUFFER * BUFFERS});
    for (unsigned i = 0; i < HELD; i++)
        assert_non_null(held[i] = io_buf_take(loop));
    assert_true(io_buffers_scarce(loop));
    assert_int_equal(send(peer, "a", 1, 0), 1);
    turn_until(stream.queued == 1 && !io_op_in_flight(&stream.recv));
    start_waiting();
    assert_int_equal(send(peer, "b", 1, 0), 1);
    turn_until(done);
    assert_int_equal(result, 1);
    assert_int_equal(peek_len(&stream), 2);
    for (unsigned i = 0; i < HELD; i++)
        io_buf_release(loop, held[i]);
    close_stream();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(small_buffers_leave_room_for_more),
        ON_BOTH(nothing_is_lost_or_moved),
        ON_BOTH(a_full_queue_is_told_of),
        ON_BOTH(the_end_is_told_of),
        ON_BOTH(scarce_buffers_stop_nobody_who_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
