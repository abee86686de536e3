/*
 * Load of TLS handshakes: keeps a number of connections in flight, each of which handshakes, asks
 * for one response, reads it to the end of the connection and makes place for the next one.
 *
 *   connecting ──▶ handshaking ──▶ reading ──▶ closed, counted, opened again
 *
 * usage: handshakes PORT PATH CONNECTIONS SECONDS full|resumed
 *
 * Every handshake must be what is measured, or it counts as an error: TLS 1.3, the cipher and the
 * group below, HTTP/1.1 by ALPN, a complete answer with status 200, and a session that is new
 * (full) or resumed with the last ticket that its place got (resumed; one full handshake before the
 * time begins to count fetches the first ticket for all). Prints a line: requests, seconds, errors,
 * and the latency of a connection from connect to its end.
 */
#include "loopback.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    LATENCIES_MAX = 1 << 20,
    HEAD_BYTES_MAX = 4096,
    EVENT_WAIT_MS = 100,
    FIRST_TICKET_MS_MAX = 5000,
    FATAL_ERRORS = 100, /* more say nothing new */
};

#define CIPHER "TLS_AES_128_GCM_SHA256"
#define GROUP  "X25519"

struct connection {
    int fd;
    SSL *ssl;
    SSL_SESSION *session; /* the newest one, or NULL; resumed mode only */
    bool asked;
    uint64_t began_us;
    size_t received; /* of the response, head and body */
    char head[HEAD_BYTES_MAX];
};

static struct {
    struct sockaddr_in address;
    char request[256];
    int request_len;
    bool resumed; /* that is wanted of every handshake */
    int epoll;
    SSL_CTX *ssl;
    struct connection connections[CONNECTIONS_MAX];
    size_t requests, errors;
    uint32_t latencies_us[LATENCIES_MAX];
} load;

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void fail(const char *why)
{
    fprintf(stderr, "handshakes: %s\n", why);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void wrong(const char *what)
{
    fprintf(stderr, "handshakes: %s\n", what);
    ERR_print_errors_fp(stderr);
    if (++load.errors > FATAL_ERRORS)
        fail("too many errors");
}

/* OpenSSL hands over a session for each ticket. */
static int take_session(SSL *ssl, SSL_SESSION *session)
{
    struct connection *connection = SSL_get_app_data(ssl);
    SSL_SESSION_free(connection->session);
    connection->session = session;
    return 1; /* the reference is ours now */
}

static void make_context(void)
{
    load.ssl = SSL_CTX_new(TLS_client_method());
    if (!load.ssl || !SSL_CTX_set_min_proto_version(load.ssl, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(load.ssl, CIPHER) || !SSL_CTX_set1_groups_list(load.ssl, GROUP) ||
        SSL_CTX_set_alpn_protos(load.ssl, (const unsigned char *)"\x08http/1.1", 9))
        fail("no TLS");
    SSL_CTX_set_verify(load.ssl, SSL_VERIFY_NONE, NULL);
    if (load.resumed) {
        SSL_CTX_set_session_cache_mode(load.ssl,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(load.ssl, take_session);
    }
}

static void open_connection(struct connection *connection)
{
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        fail("no socket");
    connection->ssl = SSL_new(load.ssl);
    if (!connection->ssl || !SSL_set_fd(connection->ssl, connection->fd))
        fail("no session");
    SSL_set_app_data(connection->ssl, connection);
    SSL_set_connect_state(connection->ssl);
    if (connection->session)
        SSL_set_session(connection->ssl, connection->session);
    connection->asked = false;
    connection->received = 0;
    connection->began_us = now_us();

    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (connect(connection->fd, (struct sockaddr *)&load.address, sizeof(load.address)) &&
        errno != EINPROGRESS)
        fail("cannot connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, connection->fd, &event))
        fail("no event");
}

/* NULL: the handshake is as it must be. */
static const char *handshake_fault(const struct connection *connection)
{
    const unsigned char *alpn;
    unsigned alpn_len;
    SSL_get0_alpn_selected(connection->ssl, &alpn, &alpn_len);
    if (SSL_version(connection->ssl) != TLS1_3_VERSION)
        return "not TLS 1.3";
    if (strcmp(SSL_get_cipher_name(connection->ssl), CIPHER) != 0)
        return "not " CIPHER;
    if (SSL_get_negotiated_group(connection->ssl) != NID_X25519)
        return "not " GROUP;
    if (alpn_len != 8 || memcmp(alpn, "http/1.1", 8) != 0)
        return "not http/1.1 by ALPN";
    if (SSL_session_reused(connection->ssl) != load.resumed)
        return load.resumed ? "not resumed" : "resumed";
    return NULL;
}

/* NULL: the connection brought one whole answer with status 200. */
static const char *answer_fault(struct connection *connection)
{
    size_t kept = connection->received < HEAD_BYTES_MAX ? connection->received : HEAD_BYTES_MAX - 1;
    connection->head[kept] = '\0';
    const char *end = strstr(connection->head, "\r\n\r\n");
    const char *length = strcasestr(connection->head, "\r\ncontent-length:");
    if (!end || !length || length > end)
        return "no answer of a known length";
    if (strncmp(connection->head, "HTTP/1.1 200 ", 13) != 0)
        return "a status other than 200";
    size_t body_bytes = strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
    size_t head_bytes = (size_t)(end + 4 - connection->head);
    return connection->received == head_bytes + body_bytes ? NULL : "an answer of another length";
}

/* Closes and counts. */
static void finish(struct connection *connection, const char *fault)
{
    if (fault) {
        wrong(fault);
    } else {
        if (load.requests < LATENCIES_MAX)
            load.latencies_us[load.requests] = (uint32_t)(now_us() - connection->began_us);
        load.requests++;
    }
    /* OpenSSL takes a connection that was not closed in both directions for a reason to forget its
     * session. */
    SSL_set_shutdown(connection->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(connection->ssl);
    close(connection->fd);
}

static void receive(struct connection *connection, const char *bytes, size_t len)
{
    if (connection->received < HEAD_BYTES_MAX) {
        size_t room = HEAD_BYTES_MAX - connection->received;
        memcpy(connection->head + connection->received, bytes, len < room ? len : room);
    }
    connection->received += len;
}

/* Goes on as far as it can. False: the connection is finished. */
static bool advance(struct connection *connection)
{
    char bytes[16384];
    int n;
    ERR_clear_error();
    if (!connection->asked) {
        n = SSL_do_handshake(connection->ssl);
        if (n == 1) {
            const char *fault = handshake_fault(connection);
            if (fault) {
                finish(connection, fault);
                return false;
            }
            connection->asked = true;
            n = SSL_write(connection->ssl, load.request, load.request_len);
        }
    } else {
        n = 1;
    }
    while (n > 0 && (n = SSL_read(connection->ssl, bytes, sizeof(bytes))) > 0)
        receive(connection, bytes, (size_t)n);

    switch (SSL_get_error(connection->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return true;
    case SSL_ERROR_ZERO_RETURN:
        finish(connection, answer_fault(connection));
        return false;
    default:
        finish(connection, "the connection failed");
        return false;
    }
}

static int by_value(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static void print_result(uint64_t elapsed_us)
{
    size_t known = load.requests < LATENCIES_MAX ? load.requests : LATENCIES_MAX;
    qsort(load.latencies_us, known, sizeof(*load.latencies_us), by_value);
    printf("requests %zu seconds %.6f errors %zu p50_us %u p99_us %u\n", load.requests,
           (double)elapsed_us / 1e6, load.errors, load.latencies_us[known / 2],
           load.latencies_us[known * 99 / 100]);
}

/* One full handshake; its ticket is every connection's first one. */
static void fetch_ticket(size_t connections)
{
    struct epoll_event event;
    load.resumed = false;
    open_connection(&load.connections[0]);
    do {
        if (epoll_wait(load.epoll, &event, 1, FIRST_TICKET_MS_MAX) != 1)
            fail("no answer");
    } while (advance(event.data.ptr));
    load.resumed = true;
    load.requests = 0;

    SSL_SESSION *session = load.connections[0].session;
    if (!session)
        fail("no ticket");
    /* Copies, for OpenSSL does not use a session again for which a newer ticket came. */
    for (size_t i = 1; i < connections; i++)
        load.connections[i].session = SSL_SESSION_dup(session);
}

static void run(size_t connections, uint64_t duration_us)
{
    struct epoll_event events[CONNECTIONS_MAX];
    uint64_t began_us = now_us(), elapsed_us = 0;
    for (size_t i = 0; i < connections; i++)
        open_connection(&load.connections[i]);
    while (elapsed_us < duration_us) {
        int count = epoll_wait(load.epoll, events, CONNECTIONS_MAX, EVENT_WAIT_MS);
        for (int i = 0; i < count; i++) {
            if (!advance(events[i].data.ptr))
                open_connection(events[i].data.ptr);
        }
        elapsed_us = now_us() - began_us;
    }
    print_result(elapsed_us);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        fail("usage: handshakes PORT PATH CONNECTIONS SECONDS full|resumed");
    signal(SIGPIPE, SIG_IGN);
    size_t connections = strtoul(argv[3], NULL, 10);
    if (connections == 0 || connections > CONNECTIONS_MAX)
        fail("CONNECTIONS is 1 to 1024");
    load.address = loopback_address((uint16_t)strtoul(argv[1], NULL, 10));
    load.resumed = strcmp(argv[5], "resumed") == 0;
    load.request_len =
        snprintf(load.request, sizeof(load.request),
                 "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", argv[2]);
    assert(load.request_len < (int)sizeof(load.request));
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    make_context();
    if (load.resumed)
        fetch_ticket(connections);
    run(connections, (uint64_t)(strtod(argv[4], NULL) * 1e6));
    return load.errors || !load.requests;
}
