/* A client of HTTP/2 that sends anything: whatever comes, the connection ends when the client
 * closes, with every stream, coroutine and buffer given back. The first byte picks how what is sent
 * is cut in two. */
#include "fuzz.h"

#include "coro/coro.h"
#include "http/server.h"
#include "io/io.h"

#include <assert.h>
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS_BEFORE_END = 6, TURNS_TO_END = 2000, SIZE_MAX_BYTES = 16384 };

/* Reads the body to its end, if there is one, and answers with some bytes and a trailer. */
static struct response *handle(struct service *service, struct request *request)
{
    (void)service;
    struct slice pieces[BODY_SLICES_MAX];
    int count;
    do
        count =
            body_read(&request->body, pieces, BODY_SLICES_MAX, request->exchange->total_deadline);
    while (count > 0);
    if (count == -ECANCELED)
        return NULL;
    struct response *response = response_create_text(request, 200, SLICE("an answer"));
    if (response)
        headers_add(&response->trailers, SLICE("X-End"), SLICE("yes"));
    return response;
}

static void retain(struct service *service)
{
    (void)service;
}

static struct service service = {.handle = handle, .retain = retain, .release = retain};
static struct http_server server;
static struct io *io;

static void set_up(void)
{
    struct io_options options = {.kind = IO_KIND_EPOLL};
    struct listener_config config;
    int result = io_create(&io, &options);
    assert(result == 0);
    listener_config_init(&config);
    config.protocols = PROTOCOL_H1 | PROTOCOL_H2C;
    config.head_max_bytes = 2048;
    config.body_max_bytes = 4096;
    config.h2_streams_max = 8;
    http_server_init(&server, io);
    http_server_set_service(&server, &service, &config);
}

static void turn(int wait_ms)
{
    int result = io_turn(io, coro_any_ready() ? 0 : wait_ms);
    assert(result == 0);
    coro_run_ready();
}

static void send_all(int fd, const uint8_t *data, size_t size)
{
    ssize_t sent = size ? send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    (void)sent; /* the server may have closed already */
    for (int i = 0; i < TURNS_BEFORE_END; i++)
        turn(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    int fds[2];
    if (size < 2 || size > SIZE_MAX_BYTES)
        return 0;
    if (!io)
        set_up();
    int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
    assert(result == 0);
    http_server_accept(&server, fds[0]);
    send_all(fds[1], preface, data[0] & 1 ? sizeof(preface) - 1 : 0);
    size_t first = (size_t)(data[0] >> 1) % size;
    send_all(fds[1], data + 1, first);
    send_all(fds[1], data + 1 + first, size - 1 - first);
    close(fds[1]);
    for (int i = 0; server.connection_count; i++) {
        assert(i < TURNS_TO_END);
        turn(1);
    }
    turn(0);
    assert(coro_count() == 0 && exchange_active_count() == 0 && io_stats(io).buffers_held == 0);
    return 0;
}
