#include "proxy_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "coro/coro.h"
#include "http/server.h"
#include "proxy/chain.h"

static volatile sig_atomic_t stop_asked;

struct site_service {
    struct service service;
    struct chain chain;
};

static struct response *handle(struct service *service, struct request *request)
{
    return chain_run(&((struct site_service *)service)->chain, request);
}

static void hold(struct service *service)
{
    (void)service;
}

static void accepted(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    if (result >= 0)
        http_server_accept(op->owner, result);
}

static void on_term(int signal)
{
    (void)signal;
    stop_asked = 1;
}

static void turn(struct io *io, int wait_ms)
{
    io_turn(io, wait_ms);
    coro_run_ready();
}

static int run_proxy(int listener, int origin_port, enum io_kind kind,
                     void (*tune)(struct upstream_config *config))
{
    struct io *io;
    struct io_options options = {.kind = kind};
    if (io_create(&io, &options) != 0)
        return 10;
    char peer[32];
    snprintf(peer, sizeof(peer), "127.0.0.1:%d", origin_port);
    const char *peers[] = {peer};
    fcntl(listener, F_SETFL, O_NONBLOCK);
    struct upstream_config config;
    upstream_config_init(&config);
    config.name = "origin";
    config.peers = peers;
    config.peer_count = 1;
    if (tune)
        tune(&config);
    struct arena arena;
    arena_init(&arena);
    const char *error;
    struct upstream *upstream = upstream_open(io, &config, &arena, &error);
    if (!upstream)
        return 11;

    struct chain_step step = {.layer = &upstream_layer, .self = upstream};
    struct site_service service = {.service = {.handle = handle, .retain = hold, .release = hold},
                                   .chain = {&step, 1}};
    struct listener_config limits;
    listener_config_init(&limits);
    struct http_server server;
    http_server_init(&server, io);
    http_server_set_service(&server, &service.service, &limits);

    struct io_op accept_op = {
        .kind = IO_OP_ACCEPT, .fd = listener, .done = accepted, .owner = &server};
    io_submit(io, &accept_op);
    while (!stop_asked)
        turn(io, 50);

    io_cancel(io, &accept_op);
    http_server_abort(&server);
    upstreams_close_idle();
    for (int i = 0;
         i < 200 && (server.connection_count || coro_count() || io_op_in_flight(&accept_op)); i++)
        turn(io, 10);
    int left = (int)server.connection_count;
    http_server_fini(&server);
    upstream_release(upstream);
    for (int i = 0; i < 5; i++)
        turn(io, 1);
    io_destroy(io);
    arena_fini(&arena);
    coro_fini();
    return left ? 12 : 0;
}

static int listen_on_any(int *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

void fixture_start(struct fixture *fixture, enum io_kind kind,
                   void (*tune)(struct upstream_config *config))
{
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on_any(&fixture->proxy_port);
    fixture->origin = listen_on_any(&fixture->origin_port);
    fflush(NULL);
    fixture->child = fork();
    assert_true(fixture->child >= 0);
    if (fixture->child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fixture->origin);
        struct sigaction action = {.sa_handler = on_term};
        sigaction(SIGTERM, &action, NULL);
        exit(run_proxy(listener, fixture->origin_port, kind, tune));
    }
    close(listener);
}

void fixture_stop(struct fixture *fixture)
{
    int status = 0;
    close(fixture->origin);
    kill(fixture->child, SIGTERM);
    assert_int_equal(waitpid(fixture->child, &status, 0), fixture->child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void bound_reads(int fd)
{
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

int fixture_connect(const struct fixture *fixture)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)fixture->proxy_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    bound_reads(fd);
    return fd;
}

int fixture_accept(const struct fixture *fixture)
{
    struct pollfd poller = {.fd = fixture->origin, .events = POLLIN};
    assert_int_equal(poll(&poller, 1, 5000), 1);
    int fd = accept(fixture->origin, NULL, NULL);
    assert_true(fd >= 0);
    bound_reads(fd);
    return fd;
}

int fixture_origin_untouched(const struct fixture *fixture)
{
    struct pollfd poller = {.fd = fixture->origin, .events = POLLIN};
    return poll(&poller, 1, 100) == 0;
}

void send_text(int fd, const char *text)
{
    size_t len = strlen(text);
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

static char seen[1 << 20];

const char *read_until(int fd, const char *text)
{
    size_t len = 0;
    seen[0] = '\0';
    while (!strstr(seen, text)) {
        ssize_t got = recv(fd, seen + len, sizeof(seen) - len - 1, 0);
        if (got <= 0)
            print_error("waiting for \"%s\", got \"%s\"\n", text, seen);
        assert_true(got > 0);
        len += (size_t)got;
        seen[len] = '\0';
    }
    return seen;
}

const char *read_to_end(int fd, int *reset)
{
    size_t len = 0;
    ssize_t got;
    while ((got = recv(fd, seen + len, sizeof(seen) - len - 1, 0)) > 0)
        len += (size_t)got;
    assert_true(got == 0 || errno == ECONNRESET);
    seen[len] = '\0';
    *reset = got < 0;
    return seen;
}

void close_with_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}
