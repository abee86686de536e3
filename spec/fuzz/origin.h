/* What targets have in common that play the origin of a client of ours. */
#ifndef FUZZ_ORIGIN_H
#define FUZZ_ORIGIN_H

#include <assert.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "http/client_exchange.h"
#include "io/io.h"
#include "net/address.h"

static struct io *io;
static struct address origin;
static int listener;

static void set_up(void)
{
    struct io_options options = {.kind = IO_KIND_EPOLL};
    int result = io_create(&io, &options);
    assert(result == 0);
    origin.v4 =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    origin.len = sizeof(origin.v4);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    result = bind(listener, &origin.any, origin.len);
    assert(result == 0);
    result = listen(listener, 8);
    assert(result == 0);
    result = getsockname(listener, &origin.any, &origin.len);
    assert(result == 0);
}

static int read_body_piece(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct client_exchange *exchange = body->source;
    return exchange->ops->read_body(exchange, body, out, max, deadline);
}

static void release_body(struct body *body)
{
    (void)body;
}

static const struct body_ops ops = {.read = read_body_piece, .release = release_body};

#endif
