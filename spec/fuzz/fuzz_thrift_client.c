/* An origin of Thrift that sends anything: whatever comes, each of six calls on the connection ends
 * in its own reply or an error, and the connection when the origin closes, with every call,
 * coroutine and buffer given back. The first byte picks how what is sent is cut, the second one how
 * many calls may be under way and what follows the bytes. */
#include "fuzz.h"
#include "origin.h"

#include "base/clock.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "thrift/client.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CALLS = 6,
    FRAME_MAX_BYTES = 1200000,
    FILLER_BYTES = 1150000, /* enough for a reply that is read as it is sent on */
    SIZE_MAX_BYTES = 16384,
    TURNS_BEFORE_END = 6,
    TURNS_TO_END = 20000,
};

enum { ONE_AT_A_TIME = 1, FILLED = 2 }; /* bits of the second byte */

/* What becomes of the calls, whose sequence ids on a new connection are 1 and so on. */
enum kind { PLAIN, ONEWAY, GIVEN_UP, UPLOADED };
static const enum kind kinds[CALLS] = {PLAIN, ONEWAY, PLAIN, PLAIN, GIVEN_UP, UPLOADED};

static struct thrift_client *client;
static unsigned running; /* coroutines of ours */
static unsigned begun;   /* calls of this run, as is the next */
static unsigned sent;
static bool closed;

/* --- A call ----------------------------------------------------------------------------------- */

static void read_arguments(struct client_exchange *exchange, struct response *response)
{
    struct slice pieces[BODY_SLICES_MAX];
    int64_t bytes = 0;
    int count;
    exchange->ops->begin_body(exchange, response, &ops);
    if (response->body.ops == &ops)
        response->body.source = exchange;
    int64_t length = response->body.length;
    while ((count = body_read(&response->body, pieces, BODY_SLICES_MAX, DEADLINE_NEVER)) > 0)
        for (int i = 0; i < count; i++)
            bytes += (int64_t)pieces[i].len;
    assert(count < 0 || length == bytes);
}

static void read_reply(struct client_exchange *exchange, struct request *request, enum kind kind)
{
    const struct thrift_client_call *call =
        container_of(exchange, struct thrift_client_call, exchange);
    const char *why = NULL;
    struct response *response = response_create(request, 0);
    int64_t deadline = kind == GIVEN_UP ? io_now_ms(io) + 1 : DEADLINE_NEVER;
    int result = exchange->ops->read_head(exchange, response, &why, deadline);
    assert(result != -EPROTO || (why && why[0]));
    assert(result != -ETIMEDOUT || kind == GIVEN_UP);
    if (result < 0)
        return;
    assert(!response->thrift == (kind == ONEWAY));
    if (response->thrift) {
        assert(response->thrift->seqid == call->seqid);
        assert(response->thrift->protocol == request->thrift->protocol);
    }
    read_arguments(exchange, response);
}

static int send_call(struct client_exchange *exchange, struct request *request, enum kind kind)
{
    struct slice whole = SLICE("some bytes");
    struct slice rest = slice_of(whole.ptr + 5, 5);
    struct client_head head = {.request = request};
    body_init_bytes(&request->body, whole);
    request->body.ended = kind != UPLOADED;
    struct slice start = kind == UPLOADED ? slice_of(whole.ptr, 5) : whole;
    int result = exchange->ops->send_head(exchange, &head, start, DEADLINE_NEVER);
    if (result == 0 && kind == UPLOADED)
        result = exchange->ops->send_body(exchange, &rest, 1, true, DEADLINE_NEVER);
    return result;
}

static void call_main(void *arg)
{
    struct client_exchange *exchange = arg;
    enum kind kind = kinds[sent++];
    struct exchange *whole = exchange_begin(io);
    struct request *request = &whole->request;
    struct thrift_message message = {.transport = THRIFT_FRAMED,
                                     .protocol = THRIFT_BINARY,
                                     .type = kind == ONEWAY ? THRIFT_ONEWAY : THRIFT_CALL,
                                     .seqid = 7, /* every client's own */
                                     .method = SLICE("ab")};
    request->thrift = &message;
    headers_init(&message.numbers, request->arena);
    int result = send_call(exchange, request, kind);
    if (result != -ENOMEM)
        read_reply(exchange, request, kind);
    thrift_client_end_exchange(exchange, result == 0);
    exchange_end(whole);
    running--;
}

/* --- The connection --------------------------------------------------------------------------- */

static void note_closed(struct thrift_client *gone)
{
    (void)gone;
    closed = true;
}

static void start_call(void)
{
    struct client_exchange *exchange = thrift_client_begin(client);
    assert(exchange);
    running++;
    begun++;
    struct coro *coro = coro_start(call_main, exchange);
    assert(coro);
}

static void open_main(void *arg)
{
    const uint8_t *how = arg;
    struct thrift_client_options options = {.calls_max = *how & ONE_AT_A_TIME ? 1 : CALLS,
                                            .frame_max_bytes = FRAME_MAX_BYTES,
                                            .head_max_bytes = 2048};
    struct client_tls clear = {.client = NULL};
    closed = thrift_client_open(&client, io, &origin, &clear, &options, DEADLINE_NEVER) != 0;
    if (!closed)
        client->on_closed = note_closed;
    running--;
}

/* Turns; what there is room for then is begun. */
static void turn(int wait_ms)
{
    int result = io_turn(io, coro_any_ready() ? 0 : wait_ms);
    assert(result == 0);
    coro_run_ready();
    while (client && !closed && begun < CALLS && thrift_client_has_room(client))
        start_call();
}

static void send_piece(int fd, struct slice piece)
{
    for (size_t at = 0; at < piece.len;) {
        ssize_t count = send(fd, piece.ptr + at, piece.len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno != EAGAIN)
            return; /* the client may have closed already */
        at += count > 0 ? (size_t)count : 0;
        turn(count < 0);
    }
}

static void send_all(int fd, struct slice bytes, size_t piece_bytes)
{
    while (bytes.len) {
        size_t len = bytes.len < piece_bytes ? bytes.len : piece_bytes;
        send_piece(fd, slice_of(bytes.ptr, len));
        bytes = slice_of(bytes.ptr + len, bytes.len - len);
    }
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

static size_t piece_of(uint8_t choice)
{
    static const size_t sizes[] = {1, 2, 3, 7, 64, 1000, SIZE_MAX_BYTES};
    return sizes[choice % (sizeof(sizes) / sizeof(sizes[0]))];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char filler[FILLER_BYTES];
    if (size < 2 || size > SIZE_MAX_BYTES)
        return 0;
    if (!io)
        set_up();
    client = NULL;
    closed = false;
    running = 1;
    begun = sent = 0;
    struct coro *coro = coro_start(open_main, (void *)(data + 1));
    assert(coro);
    int fd = await_client();
    for (int i = 0; i < TURNS_BEFORE_END; i++)
        turn(0); /* it says what it has to say */
    send_all(fd, slice_of((const char *)data + 2, size - 2), piece_of(data[0]));
    send_all(fd, slice_of(filler, data[1] & FILLED ? FILLER_BYTES : 0), FILLER_BYTES);
    close(fd);
    for (int i = 0; running || !closed; i++) {
        assert(i < TURNS_TO_END);
        turn(1);
    }
    turn(0);
    assert(coro_count() == 0 && exchange_active_count() == 0 && io_stats(io).buffers_held == 0);
    return 0;
}
