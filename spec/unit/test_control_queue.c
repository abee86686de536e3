/* What a worker is told while it does not read. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/control_queue.h"

enum { MANY = 3000 }; /* more than a socket takes */

static struct control_message message;

static int open_pair(void **state)
{
    static int sockets[2];
    *state = sockets;
    return control_pair(sockets);
}

static int close_pair(void **state)
{
    const int *sockets = *state;
    close(sockets[0]);
    close(sockets[1]);
    return 0;
}

static void all_comes_in_order_with_its_descriptors(void **state)
{
    const int *sockets = *state;
    struct control_queue queue = {0};
    char key[32];
    struct stat sent, got;
    assert_int_equal(fstat(sockets[0], &sent), 0);
    for (unsigned i = 0; i < MANY; i++) {
        int fd = i % 100 ? -1 : dup(sockets[0]);
        snprintf(key, sizeof(key), "listener %u", i);
        assert_int_equal(
            control_queue_send(&queue, sockets[0], CONTROL_LISTEN, i, i % 2 ? key : NULL, fd), 0);
        if (fd >= 0)
            close(fd); /* what waits keeps one of its own */
    }
    assert_true(control_queue_waits(&queue));
    for (unsigned i = 0; i < MANY; i++) {
        int result = control_receive(sockets[1], &message);
        if (result == -EAGAIN) {
            assert_int_equal(control_queue_flush(&queue, sockets[0]), 0);
            result = control_receive(sockets[1], &message);
        }
        assert_int_equal(result, 1);
        assert_int_equal(message.value, i);
        snprintf(key, sizeof(key), "listener %u", i);
        assert_string_equal(message.text, i % 2 ? key : "");
        assert_int_equal(message.fd >= 0, i % 100 == 0);
        if (message.fd >= 0) {
            assert_int_equal(fstat(message.fd, &got), 0);
            assert_int_equal(got.st_ino, sent.st_ino);
            close(message.fd);
        }
    }
    assert_false(control_queue_waits(&queue));
    assert_int_equal(control_receive(sockets[1], &message), -EAGAIN);
}

static void not_more_waits_than_is_reasonable(void **state)
{
    const int *sockets = *state;
    struct control_queue queue = {0};
    int result = 0;
    unsigned sent = 0;
    while (sent < 100000 && result == 0) {
        result = control_queue_send(&queue, sockets[0], CONTROL_REOPEN, 0, NULL, sockets[1]);
        sent += result == 0;
    }
    assert_true(result == -ENOBUFS || result == -EMFILE);
    assert_in_range(sent, 1, 10000);
    int next = dup(sockets[0]);
    control_queue_clear(&queue);
    int lowest = dup(sockets[0]);
    assert_true(next < 0 || lowest < next); /* their descriptors are closed */
    close(next);
    close(lowest);
}

static void one_that_is_gone_is_told_of(void **state)
{
    const int *sockets = *state;
    struct control_queue queue = {0};
    while (!control_queue_waits(&queue))
        assert_int_equal(control_queue_send(&queue, sockets[0], CONTROL_PING, 0, NULL, -1), 0);
    int empty[2];
    assert_int_equal(control_pair(empty), 0);
    dup2(empty[1], sockets[1]); /* closes the other end */
    int result = control_queue_flush(&queue, sockets[0]);
    assert_true(result == -EPIPE || result == -ECONNRESET);
    control_queue_clear(&queue);
    close(empty[0]);
    close(empty[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_comes_in_order_with_its_descriptors, open_pair,
                                        close_pair),
        cmocka_unit_test_setup_teardown(not_more_waits_than_is_reasonable, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(one_that_is_gone_is_told_of, open_pair, close_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
