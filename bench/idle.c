/*
 * Holds idle connections: opens them, asks for one response on each, prints "idle" and keeps them
 * open until its standard input ends. With "tls", each has made a full handshake (and its state on
 * this side is thrown away: it will not be needed again).
 *
 * usage: idle PORT PATH CONNECTIONS plain|tls
 */
#include "loopback.h"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>
#include <unistd.h>

enum { THREADS = 8, ANSWER_BYTES_MAX = 8192, TIMEOUT_SECONDS = 10 };

static struct sockaddr_in address;
static SSL_CTX *context; /* NULL: in the clear */
static char request[256];
static int request_len;
static unsigned wanted;
static atomic_uint opened;

static void fail(const char *why)
{
    fprintf(stderr, "idle: %s\n", why);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static bool complete(char *answer, size_t len)
{
    answer[len] = '\0';
    const char *end = strstr(answer, "\r\n\r\n"),
               *length = strcasestr(answer, "\r\ncontent-length:");
    if (!end)
        return false;
    if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0 || !length || length > end)
        fail("an answer that is not 200 with a length");
    return len >=
           (size_t)(end + 4 - answer) + strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
}

static void ask(int fd, SSL *ssl)
{
    char answer[ANSWER_BYTES_MAX + 1];
    size_t len = 0;
    long n = ssl ? SSL_write(ssl, request, request_len)
                 : send(fd, request, (size_t)request_len, MSG_NOSIGNAL);
    if (n != request_len)
        fail("cannot send");
    do {
        n = ssl ? SSL_read(ssl, answer + len, (int)(ANSWER_BYTES_MAX - len))
                : recv(fd, answer + len, ANSWER_BYTES_MAX - len, 0);
        if (n <= 0)
            fail("no answer");
        len += (size_t)n;
    } while (!complete(answer, len));
}

static void open_connection(void)
{
    struct timeval patience = {.tv_sec = TIMEOUT_SECONDS};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
        connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        perror("idle: connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    SSL *ssl = context ? SSL_new(context) : NULL;
    if (ssl && (!SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1))
        fail("no handshake");
    ask(fd, ssl);
    SSL_free(ssl); /* the descriptor stays open, and nothing is said on it */
}

static void *work(void *unused)
{
    (void)unused;
    while (atomic_fetch_add(&opened, 1) < wanted)
        open_connection();
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage: idle PORT PATH CONNECTIONS plain|tls");
    signal(SIGPIPE, SIG_IGN);
    address = loopback_address((uint16_t)strtoul(argv[1], NULL, 10));
    wanted = (unsigned)strtoul(argv[3], NULL, 10);
    request_len =
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", argv[2]);
    if (request_len >= (int)sizeof(request))
        fail("PATH is too long");
    if (strcmp(argv[4], "tls") == 0) {
        context = SSL_CTX_new(TLS_client_method());
        if (!context || SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\x08http/1.1", 9))
            fail("no TLS");
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }

    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            fail("no thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    puts("idle");
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    return 0;
}
