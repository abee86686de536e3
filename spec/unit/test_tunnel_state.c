/* Messages about tunnels that move: what is written reads as what it was, everything else is
 * refused; and the sockets that they go over take nothing that is none. */
#include "net/tunnel_state.h"
#include "server/tunnel_socket.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static char message[TUNNEL_STATE_MAX_BYTES];

static struct address address_of(const char *text)
{
    struct address address;
    const char *why = "";
    if (address_parse(slice_from_cstr(text), &address, &why) != 0)
        fail_msg("%s: %s", text, why);
    return address;
}

static struct tunnel_state example(void)
{
    return (struct tunnel_state){
        .kind = TUNNEL_OF_LAYER4,
        .listener = SLICE("127.0.0.1:0#2"),
        .client_remote = address_of("192.0.2.7:50112"),
        .client_local = address_of("[2001:db8::1]:443"),
        .peer_remote = address_of("unix:/run/peer.sock"),
        .peer = SLICE("unix:/run/peer.sock"),
        .logs = {{.format = 1, .target = SLICE("stdout")},
                 {.format = 2,
                  .target = SLICE("/a/b"),
                  .line = {.text = SLICE("[] 200 -"), .time_at = 1, .amounts_at = 6}}},
        .log_count = 2,
        .id = 7,
        .started_us = 123456789,
        .moved_ms = 123456,
        .deadline_ms = INT64_MAX,
        .idle_timeout_ms = 3600000,
        .half_closed_timeout_ms = 60000,
        .client_bytes = UINT64_C(1) << 40,
        .peer_bytes = 17,
        .client_pending = 4 << 20,
        .peer_pending = 4 << 20,
        .peer_shut = true,
    };
}

static size_t write_example(void)
{
    struct tunnel_state state = example();
    int len = tunnel_state_write(&state, message);
    assert_true(len > 0);
    return (size_t)len;
}

/* Parses with every byte beyond the end out of bounds, for ASan. */
static int parse(const char *bytes, size_t len, struct tunnel_state *state)
{
    const char *why = NULL;
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    int result = tunnel_state_parse(slice_of(copy, len), state, &why);
    assert_true((result == 0) == (why == NULL));
    free(copy);
    return result;
}

static void reads_what_was_written(void **unused)
{
    (void)unused;
    struct tunnel_state state = example(), read;
    const char *why;
    size_t len = write_example();
    assert_int_equal(tunnel_state_parse(slice_of(message, len), &read, &why), 0);
    assert_int_equal(read.kind, state.kind);
    assert_true(slice_equal(read.listener, state.listener));
    assert_true(slice_equal(read.peer, state.peer));
    assert_true(address_equal(&read.client_remote, &state.client_remote));
    assert_true(address_equal(&read.client_local, &state.client_local));
    assert_true(address_equal(&read.peer_remote, &state.peer_remote));
    assert_int_equal(read.log_count, 2);
    assert_int_equal(read.logs[1].format, 2);
    assert_true(slice_equal(read.logs[1].target, state.logs[1].target));
    assert_true(slice_equal(read.logs[1].line.text, state.logs[1].line.text));
    assert_int_equal(read.logs[1].line.time_at, 1);
    assert_int_equal(read.logs[1].line.amounts_at, 6);
    assert_int_equal(read.logs[0].line.text.len, 0);
    assert_int_equal(read.id, state.id);
    assert_int_equal(read.started_us, state.started_us);
    assert_int_equal(read.moved_ms, state.moved_ms);
    assert_true(read.deadline_ms == INT64_MAX);
    assert_int_equal(read.idle_timeout_ms, state.idle_timeout_ms);
    assert_int_equal(read.half_closed_timeout_ms, state.half_closed_timeout_ms);
    assert_true(read.client_bytes == state.client_bytes && read.peer_bytes == 17);
    assert_int_equal(read.client_pending, state.client_pending);
    assert_int_equal(read.peer_pending, state.peer_pending);
    assert_true(read.peer_shut && !read.client_shut);
}

static void refuses_cuts_and_more(void **unused)
{
    (void)unused;
    struct tunnel_state state;
    size_t len = write_example();
    for (size_t part = 0; part < len; part++)
        assert_int_equal(parse(message, part, &state), -EPROTO);
    message[len] = 0;
    assert_int_equal(parse(message, len + 1, &state), -EPROTO);
}

/* Whatever one byte becomes, nothing is read beyond the end and counts stay within their bounds. */
static void survives_any_byte(void **unused)
{
    (void)unused;
    struct tunnel_state state;
    size_t len = write_example();
    for (size_t at = 0; at < len; at++) {
        char kept = message[at];
        for (unsigned byte = 0; byte < 256; byte++) {
            message[at] = (char)byte;
            if (parse(message, len, &state) == 0)
                assert_true(state.log_count <= TUNNEL_STATE_LOGS_MAX && state.listener.len);
        }
        message[at] = kept;
    }
}

static void expect_refusal(struct tunnel_state state)
{
    struct tunnel_state read;
    int len = tunnel_state_write(&state, message);
    assert_true(len > 0);
    assert_int_equal(parse(message, (size_t)len, &read), -EPROTO);
}

static void refuses_what_makes_no_sense(void **unused)
{
    (void)unused;
    struct tunnel_state state = example();
    state.client_shut = true; /* with both ends shut it has ended */
    expect_refusal(state);
    state = example();
    state.kind = (enum tunnel_kind)3;
    expect_refusal(state);
    state = example();
    state.client_pending++;
    expect_refusal(state);
    state = example();
    state.listener = SLICE("");
    expect_refusal(state);
    state = example();
    state.listener = SLICE("a\0b");
    expect_refusal(state);
    state = example();
    state.logs[0].target = SLICE("");
    expect_refusal(state);
    state = example();
    state.client_remote.len--;
    expect_refusal(state);
    state = example();
    state.logs[1].line.time_at = 7;
    expect_refusal(state);
    state = example();
    state.logs[1].line.amounts_at = 9;
    expect_refusal(state);
    state = example();
    state.moved_ms = -1;
    expect_refusal(state);
}

static void does_not_write_too_much(void **unused)
{
    (void)unused;
    static char text[TUNNEL_STATE_MAX_BYTES];
    struct tunnel_state state = example();
    memset(text, 'a', sizeof(text));
    state.logs[0].target = slice_of(text, sizeof(text));
    assert_int_equal(tunnel_state_write(&state, message), -EMSGSIZE);
    state.logs[0].target = slice_of(text, 70000 < sizeof(text) ? 70000 : sizeof(text));
    state.log_count = 1;
    assert_int_equal(tunnel_state_write(&state, message), -EMSGSIZE);
}

/* --- Sockets ---------------------------------------------------------------------------------- */

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void send_fds(int socket, const int *fds, unsigned count, const char *text)
{
    char space[CMSG_SPACE(32 * sizeof(int))] = {0};
    struct iovec iov = {(void *)text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        msg.msg_control = space;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    assert_true(sendmsg(socket, &msg, 0) >= 0);
}

struct ends {
    int sockets[2];  /* of offers */
    int streams[2];  /* a client and a peer */
    int channels[2]; /* of answers */
    int file;
};

static struct ends open_ends(void)
{
    struct ends ends;
    assert_int_equal(tunnel_socket_pair(ends.sockets), 0);
    assert_int_equal(tunnel_socket_pair(ends.channels), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.streams), 0);
    ends.file = memfd_create("test", 0);
    assert_true(ends.file >= 0);
    return ends;
}

static void close_ends(struct ends *ends)
{
    const int all[] = {ends->sockets[0],  ends->sockets[1],  ends->streams[0], ends->streams[1],
                       ends->channels[0], ends->channels[1], ends->file};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        close(all[i]);
}

static void offers_and_answers_arrive(void **unused)
{
    (void)unused;
    struct ends ends = open_ends();
    struct offer_fds sent = {ends.streams[0], ends.streams[1], ends.channels[1], ends.file}, got;
    assert_int_equal(tunnel_socket_receive(ends.sockets[1], message, 100, &got), -EAGAIN);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(tunnel_socket_offer(ends.sockets[0], SLICE("offer"), &sent), 0);
        assert_int_equal(tunnel_socket_receive(ends.sockets[1], message, 100, &got), 5);
        assert_memory_equal(message, "offer", 5);
        assert_true((got.pending >= 0) == (sent.pending >= 0));
        assert_int_equal(tunnel_socket_hear(ends.channels[0]), -EAGAIN);
        assert_int_equal(tunnel_socket_say(got.channel, TUNNEL_TAKEN), 0);
        assert_int_equal(tunnel_socket_hear(ends.channels[0]), TUNNEL_TAKEN);
        offer_fds_close(&got);
        sent.pending = -1;
    }
    close(ends.channels[1]);
    ends.channels[1] = -1;
    assert_int_equal(tunnel_socket_hear(ends.channels[0]), 0);
    assert_int_equal(tunnel_socket_say(ends.channels[0], TUNNEL_YOURS), -EPIPE);
    close(ends.sockets[0]);
    ends.sockets[0] = -1;
    assert_int_equal(tunnel_socket_receive(ends.sockets[1], message, 100, &got), 0);
    close_ends(&ends);
}

/* Of garbage nothing is left open. */
static void garbage_is_refused_and_closed(void **unused)
{
    (void)unused;
    struct ends ends = open_ends();
    int client = ends.streams[0], peer = ends.streams[1], channel = ends.channels[1];
    int many[20];
    for (unsigned i = 0; i < 20; i++)
        many[i] = client;
    const struct {
        unsigned count;
        int fds[5];
        const char *text;
    } garbage[] = {
        {0, {-1}, "no descriptors"},
        {1, {client}, "one"},
        {2, {client, peer}, "two"},
        {5, {client, peer, channel, ends.file, ends.file}, "five"},
        {3, {client, peer, client}, "the channel is a stream"},
        {3, {client, ends.file, channel}, "the peer is a file"},
        {3, {channel, peer, channel}, "the client is a channel"},
        {4, {client, peer, channel, client}, "the file is a socket"},
        {3, {client, peer, channel}, ""},
        {3, {client, peer, channel}, "a text that is longer than there is room for it"},
    };
    unsigned before = open_descriptors();
    struct offer_fds got;
    for (unsigned i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        send_fds(ends.sockets[0], garbage[i].fds, garbage[i].count, garbage[i].text);
        assert_int_equal(tunnel_socket_receive(ends.sockets[1], message, 40, &got), -EPROTO);
        assert_int_equal(open_descriptors(), before);
    }
    send_fds(ends.sockets[0], many, 20, "twenty");
    assert_int_equal(tunnel_socket_receive(ends.sockets[1], message, 40, &got), -EPROTO);
    assert_int_equal(open_descriptors(), before);
    close_ends(&ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(refuses_cuts_and_more),
        cmocka_unit_test(survives_any_byte),
        cmocka_unit_test(refuses_what_makes_no_sense),
        cmocka_unit_test(does_not_write_too_much),
        cmocka_unit_test(offers_and_answers_arrive),
        cmocka_unit_test(garbage_is_refused_and_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
