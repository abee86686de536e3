/* A client of Thrift that sends anything: every whole call gets one reply of its own sequence id
 * and name, in its turn where replies are ordered, and nothing else is sent; then the connection
 * ends with every call, coroutine and buffer given back. The first byte picks how what is sent is
 * cut, the second one how the listener is set, what follows the bytes and how the client ends. */
#include "fuzz.h"

#include "coro/coro.h"
#include "http/server.h"
#include "io/io.h"
#include "io/wait.h"
#include "thrift/exchange.h"
#include "thrift/server.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SIZE_MAX_BYTES = 16384,
    FILLER_BYTES = 70000, /* enough for arguments that are read as they are sent on */
    INPUT_MAX_BYTES = SIZE_MAX_BYTES + FILLER_BYTES,
    STREAMED_BYTES = 65536, /* as in thrift/call.c: longer arguments are not kept */
    REPLIES_MAX_BYTES = 1 << 20,
    CALLS_MAX = SIZE_MAX_BYTES / 16 + 1,
    TURNS_TO_END = 20000,
};

enum { ORDERED = 1, FILLED = 2, HALF_CLOSES = 4 }; /* bits of the second byte */

static const struct thrift_limits limits = {
    .frame_max_bytes = 100000, .head_max_bytes = 2048, .field_count_max = 16};

static struct service service;
static struct http_server server;
static struct io *io;

/* --- The service ------------------------------------------------------------------------------ */

/* Reads the arguments to their end and answers, some calls later than others, some with a failure.
 */
static struct response *handle(struct service *self, struct request *request)
{
    (void)self;
    struct slice pieces[BODY_SLICES_MAX];
    int64_t deadline = request->exchange->total_deadline;
    int count;
    do
        count = body_read(&request->body, pieces, BODY_SLICES_MAX, deadline);
    while (count > 0);
    if (count == -ECANCELED || wait_sleep(io, io_now_ms(io) + (int)(request->path.len & 1)) < 0)
        return NULL;
    uint16_t status = request->path.len & 2 ? 200 : 404;
    return response_create_text(request, status, SLICE("an answer"));
}

static void retain(struct service *self)
{
    (void)self;
}

static void set_up(void)
{
    struct io_options options = {.kind = IO_KIND_EPOLL};
    int result = io_create(&io, &options);
    assert(result == 0);
    service = (struct service){.handle = handle, .retain = retain, .release = retain};
    http_server_init(&server, io);
}

static void configure(bool ordered)
{
    struct listener_config config;
    listener_config_init(&config);
    config.start = thrift_connection_start;
    config.frame_max_bytes = limits.frame_max_bytes;
    config.head_max_bytes = limits.head_max_bytes;
    config.header_count_max = limits.field_count_max;
    config.calls_max = 4;
    config.ordered_replies = ordered;
    http_server_set_service(&server, &service, &config);
}

/* --- What is due ------------------------------------------------------------------------------ */

struct due {
    int32_t seqid;
    struct slice method; /* without a service, as replies have it */
    bool answered;
};

struct expectation {
    struct due calls[CALLS_MAX];
    unsigned count;
    unsigned sure_count; /* the last one, streamed and cut, may be answered or not */
    bool ordered;
};

static void expect(struct expectation *expected, const struct thrift_head *head, bool sure)
{
    assert(expected->count < CALLS_MAX);
    expected->calls[expected->count++] =
        (struct due){head->seqid, thrift_own_name(head->method), false};
    expected->sure_count += sure;
    if (head->transport != THRIFT_FRAMED && head->flags & THRIFT_HEADER_OUT_OF_ORDER)
        expected->ordered = false;
}

/* Reads what the client sends in the plainest way, all at once. */
static void read_calls(struct expectation *expected, struct slice input)
{
    struct thrift_head head;
    const char *why;
    for (;;) {
        int result = thrift_parse(&head, input.ptr, input.len, &limits, &why);
        bool is_call = head.type == THRIFT_CALL;
        if (result == -EMSGSIZE && is_call)
            expect(expected, &head, true);
        if (result != 0 || (!is_call && head.type != THRIFT_ONEWAY))
            return;
        bool whole = input.len - head.head_bytes >= head.body_bytes;
        if (is_call && (whole || head.body_bytes > STREAMED_BYTES))
            expect(expected, &head, whole);
        if (!whole)
            return;
        size_t len = (size_t)head.head_bytes + head.body_bytes;
        input = slice_of(input.ptr + len, input.len - len);
    }
}

/* Takes the reply's call off the list. False if it is nobody's. */
static bool settle(struct expectation *expected, const struct thrift_head *reply)
{
    for (unsigned i = 0; i < expected->count; i++) {
        struct due *due = &expected->calls[i];
        if (due->answered)
            continue;
        if (due->seqid == reply->seqid && slice_equal(due->method, reply->method))
            return due->answered = true;
        if (expected->ordered)
            return false;
    }
    return false;
}

static void check_replies(struct expectation *expected, struct slice replies)
{
    static const struct thrift_limits wide = {
        .frame_max_bytes = INT32_MAX, .head_max_bytes = 65536, .field_count_max = 256};
    struct thrift_head head;
    const char *why;
    unsigned count = 0;
    while (replies.len) {
        int result = thrift_parse(&head, replies.ptr, replies.len, &wide, &why);
        assert(result == 0 && (head.type == THRIFT_REPLY || head.type == THRIFT_EXCEPTION));
        size_t len = (size_t)head.head_bytes + head.body_bytes;
        assert(len <= replies.len && settle(expected, &head));
        replies = slice_of(replies.ptr + len, replies.len - len);
        count++;
    }
    assert(count >= expected->sure_count);
}

/* --- The client ------------------------------------------------------------------------------- */

/* What it has received; it reads all the time. */
static char replies[REPLIES_MAX_BYTES];
static size_t replies_len;

/* Returns what recv does. */
static ssize_t receive(int fd)
{
    ssize_t count = recv(fd, replies + replies_len, sizeof(replies) - replies_len, MSG_DONTWAIT);
    if (count > 0)
        replies_len += (size_t)count;
    assert(replies_len < sizeof(replies));
    return count;
}

static void turn(int fd, int wait_ms)
{
    int result = io_turn(io, coro_any_ready() ? 0 : wait_ms);
    assert(result == 0);
    coro_run_ready();
    if (fd >= 0)
        receive(fd);
}

/* False if the server takes no more of it. */
static bool send_piece(int fd, struct slice piece)
{
    for (size_t sent = 0; sent < piece.len;) {
        ssize_t count = send(fd, piece.ptr + sent, piece.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno != EAGAIN)
            return false;
        sent += count > 0 ? (size_t)count : 0;
        turn(fd, count < 0);
    }
    return true;
}

static void send_all(int fd, struct slice input, size_t piece_bytes)
{
    while (input.len) {
        size_t len = input.len < piece_bytes ? input.len : piece_bytes;
        if (!send_piece(fd, slice_of(input.ptr, len)))
            return;
        input = slice_of(input.ptr + len, input.len - len);
    }
}

/* Until the server has said all. */
static void finish(int fd)
{
    shutdown(fd, SHUT_WR);
    for (int i = 0; receive(fd) != 0; i++) {
        assert(i < TURNS_TO_END);
        turn(-1, 1);
    }
}

/* How the bytes are cut; what follows them never is. */
static size_t piece_of(uint8_t choice)
{
    static const size_t sizes[] = {1, 2, 3, 7, 64, 1000, INPUT_MAX_BYTES};
    return sizes[choice % (sizeof(sizes) / sizeof(sizes[0]))];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char input[INPUT_MAX_BYTES];
    static struct expectation expected;
    int fds[2];
    if (size < 2 || size > SIZE_MAX_BYTES)
        return 0;
    if (!io)
        set_up();
    uint8_t how = data[1];
    size_t own = size - 2;
    size_t len = own + (how & FILLED ? FILLER_BYTES : 0);
    memcpy(input, data + 2, own);
    memset(input + own, 0, len - own);
    configure(how & ORDERED);
    int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
    assert(result == 0);
    replies_len = 0;
    http_server_accept(&server, fds[0]);
    send_all(fds[1], slice_of(input, own), piece_of(data[0]));
    send_all(fds[1], slice_of(input + own, len - own), FILLER_BYTES);
    if (how & HALF_CLOSES) {
        expected.count = expected.sure_count = 0;
        expected.ordered = how & ORDERED;
        read_calls(&expected, slice_of(input, len));
        finish(fds[1]);
        check_replies(&expected, slice_of(replies, replies_len));
    }
    close(fds[1]);
    for (int i = 0; server.connection_count; i++) {
        assert(i < TURNS_TO_END);
        turn(-1, 1);
    }
    turn(-1, 0);
    assert(coro_count() == 0 && exchange_active_count() == 0 && io_stats(io).buffers_held == 0);
    return 0;
}
