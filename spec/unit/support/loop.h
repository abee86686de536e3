/* An event loop for tests, on both back ends, and sockets to play with. */
#ifndef SPEC_LOOP_H
#define SPEC_LOOP_H

#include "base/clock.h"
#include "coro/coro.h"
#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { PATIENCE_MS = 10000 }; /* what has not happened by then never will */

extern struct io *loop;           /* of the present test */
extern enum io_kind loop_kind;    /* its back end */
extern enum io_kind loop_kinds[]; /* IO_KIND_URING, IO_KIND_EPOLL: the states of tests */

/* Opens the loop on the back end that *state names, and closes it: nothing may be in flight, no
 * buffer held, no coroutine left. */
int loop_setup(void **state);
int loop_teardown(void **state);

/* Opens it anew with other options (their kind is set here). */
void loop_reopen(struct io_options options);

/* Entries of a test group: the test on each back end. */
#define LOOP_TEST_ON(index, name, test)                                                            \
    {                                                                                              \
#test " on " name, test, loop_setup, loop_teardown, &loop_kinds[index]                     \
    }
#define ON_BOTH(test) LOOP_TEST_ON(0, "io_uring", test), LOOP_TEST_ON(1, "epoll", test)

/* One turn of at most wait_ms, and whatever it made ready. */
void loop_turn(int wait_ms);

/* A few turns in which something that should not happen could happen. */
void loop_turn_idle(void);

/* Turns the loop until no coroutine is left. */
void loop_run_coroutines(void);

/* Turns the loop until the condition holds; fails when it does not in good time. */
#define turn_until(condition) turn_often_until(100, condition)

/* The same with turns of at most wait_ms, where it is for the test to do the next step. */
#define turn_often_until(wait_ms, condition)                                                       \
    do {                                                                                           \
        int64_t give_up_ms = clock_now_ms() + PATIENCE_MS;                                         \
        while (!(condition)) {                                                                     \
            loop_turn(wait_ms);                                                                    \
            if (clock_now_ms() > give_up_ms)                                                       \
                fail_msg("never came true: %s", #condition);                                       \
        }                                                                                          \
    } while (0)

/* Two connected, non-blocking sockets: local ones, or TCP over loopback. */
void open_local_pair(int fds[2]);
void open_tcp_pair(int fds[2]);

/* A listening, non-blocking TCP socket on a free port of 127.0.0.1. */
struct sockaddr_in;
int open_listener(struct sockaddr_in *address);

/* A non-blocking TCP socket. */
int open_socket(void);

/* Closes with a TCP reset. */
void close_by_reset(int fd);

/* A running sum that depends on every byte and their order; begin with 0. */
uint32_t checksum_add(uint32_t sum, const char *data, size_t len);

#endif
