#include "loop.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

struct io *loop;
enum io_kind loop_kind;
enum io_kind loop_kinds[] = {IO_KIND_URING, IO_KIND_EPOLL};

int loop_setup(void **state)
{
    loop_kind = *(enum io_kind *)*state;
    struct io_options options = {.kind = loop_kind};
    return io_create(&loop, &options);
}

int loop_teardown(void **state)
{
    (void)state;
    loop_turn_idle();
    assert_int_equal(coro_count(), 0);
    assert_int_equal(io_stats(loop).buffers_held, 0);
    io_destroy(loop);
    coro_fini();
    return 0;
}

void loop_reopen(struct io_options options)
{
    io_destroy(loop);
    options.kind = loop_kind;
    assert_int_equal(io_create(&loop, &options), 0);
}

void loop_turn(int wait_ms)
{
    assert_int_equal(io_turn(loop, coro_any_ready() ? 0 : wait_ms), 0);
    coro_run_ready();
}

void loop_turn_idle(void)
{
    for (unsigned i = 0; i < 5; i++)
        loop_turn(1);
}

void loop_run_coroutines(void)
{
    coro_run_ready();
    turn_until(coro_count() == 0);
}

void open_local_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

int open_listener(struct sockaddr_in *address)
{
    int fd = open_socket();
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(*address);
    assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &len), 0);
    return fd;
}

int open_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    return fd;
}

void open_tcp_pair(int fds[2])
{
    struct sockaddr_in address;
    int listener = open_listener(&address);
    fds[0] = open_socket();
    /* Over loopback the connection is complete when connect returns, blocking or not. */
    connect(fds[0], (struct sockaddr *)&address, sizeof(address));
    fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listener);
}

void close_by_reset(int fd)
{
    struct linger linger = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}

uint32_t checksum_add(uint32_t sum, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + (unsigned char)data[i];
    return sum;
}
