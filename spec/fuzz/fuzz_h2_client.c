/* An origin of HTTP/2 that sends anything: whatever comes, each of three requests on the connection
 * ends in an answer or an error, and the connection when the origin closes, with every stream,
 * coroutine and buffer given back. The first byte picks how what is sent is cut in two. */
#include "fuzz.h"
#include "origin.h"

#include "base/clock.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "http/h2_client.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REQUESTS = 3,
    HEADS_MAX = 100,
    TURNS_BEFORE_END = 6,
    TURNS_TO_END = 2000,
    SIZE_MAX_BYTES = 16384,
};

static struct h2_client *client;
static unsigned running; /* coroutines of ours */
static unsigned begun;   /* requests of this run */
static bool closed;

static void read_response(struct client_exchange *exchange, struct request *request)
{
    const char *why = "";
    struct response *response = NULL;
    int result = 0;
    for (int i = 0; result == 0 && (!response || response->status < 200); i++) {
        assert(i < HEADS_MAX);
        response = response_create(request, 0);
        result = exchange->ops->read_head(exchange, response, &why, DEADLINE_NEVER);
        assert(result != -EPROTO || why);
    }
    if (result < 0)
        return;
    assert(response->status >= 200 && response->status <= 599);
    exchange->ops->begin_body(exchange, response, &ops);
    response->body.source = exchange;
    struct slice pieces[BODY_SLICES_MAX];
    int64_t bytes = 0;
    int count;
    while ((count = body_read(&response->body, pieces, BODY_SLICES_MAX, DEADLINE_NEVER)) > 0)
        for (int i = 0; i < count; i++)
            bytes += (int64_t)pieces[i].len;
    assert(count < 0 || response->body.length < 0 || response->body.length == bytes);
}

/* Every second request has a body. */
static void request_main(void *arg)
{
    struct client_exchange *exchange = arg;
    struct exchange *whole = exchange_begin(io);
    struct request *request = &whole->request;
    bool post = begun++ & 1;
    request->method = post ? METHOD_POST : METHOD_GET;
    request->method_name = post ? SLICE("POST") : SLICE("GET");
    request->path = SLICE("/");
    struct slice body = SLICE("some bytes");
    if (post)
        body_init_bytes(&request->body, body);
    request->body.ended = true; /* all of it goes with the head */
    struct client_head head = {.request = request, .authority = SLICE("a.example")};
    exchange->head_max_bytes = 2048;
    int result = exchange->ops->send_head(exchange, &head, post ? body : SLICE(""), DEADLINE_NEVER);
    if (result != -ENOMEM)
        read_response(exchange, request);
    h2_client_end_exchange(exchange, result == 0);
    exchange_end(whole);
    running--;
}

static void note_closed(struct h2_client *gone)
{
    (void)gone;
    closed = true;
}

static void open_main(void *arg)
{
    struct h2_client_options options = {.streams_max = 8, .head_max_bytes = 2048};
    struct client_tls clear = {.client = NULL};
    (void)arg;
    closed = h2_client_open(&client, io, &origin, &clear, &options, DEADLINE_NEVER) != 0;
    if (!closed)
        client->on_closed = note_closed;
    for (int i = 0; !closed && i < REQUESTS && h2_client_has_room(client); i++) {
        struct client_exchange *exchange = h2_client_begin(client);
        assert(exchange);
        running++;
        struct coro *coro = coro_start(request_main, exchange);
        assert(coro);
    }
    running--;
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
    (void)sent; /* the client may have closed already */
    for (int i = 0; i < TURNS_BEFORE_END; i++)
        turn(0);
}

static int await_client(void)
{
    int fd = -1;
    for (int i = 0; fd < 0; i++) {
        assert(i < TURNS_TO_END);
        turn(1);
        fd = accept(listener, NULL, NULL);
    }
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
    if (size < 2 || size > SIZE_MAX_BYTES)
        return 0;
    if (!io)
        set_up();
    closed = false;
    running = 1;
    begun = 0;
    struct coro *coro = coro_start(open_main, NULL);
    assert(coro);
    int fd = await_client();
    send_all(fd, settings, data[0] & 1 ? sizeof(settings) : 0);
    size_t first = (size_t)(data[0] >> 1) % size;
    send_all(fd, data + 1, first);
    send_all(fd, data + 1 + first, size - 1 - first);
    close(fd);
    for (int i = 0; running || !closed; i++) {
        assert(i < TURNS_TO_END);
        turn(1);
    }
    turn(0);
    assert(coro_count() == 0 && exchange_active_count() == 0 && io_stats(io).buffers_held == 0);
    return 0;
}
