/*
 * What a Lua layer adds to a request: runs exchanges through chains, without sockets, and prints
 * nanoseconds per request for each listener of the site and its difference to the first.
 */
#include "base/clock.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "io/io.h"
#include "script/script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 500000, ROUNDS = 5 };

struct run {
    struct io *io;
    const struct chain *chain;
};

static void one_request(struct io *io, const struct chain *chain)
{
    struct exchange *exchange = exchange_begin(io);
    struct request *request = &exchange->request;
    exchange->coro = coro_self();
    request->method = METHOD_GET;
    request->version = HTTP_1_1;
    request->method_name = SLICE("GET");
    request->path = SLICE("/some/path");
    request->authority = SLICE("example.com");
    headers_add(&request->headers, SLICE("Host"), SLICE("example.com"));
    headers_add(&request->headers, SLICE("User-Agent"), SLICE("curl/7.88.1"));
    headers_add(&request->headers, SLICE("Accept"), SLICE("*/*"));
    struct response *response = chain_run(chain, request);
    if (!response || response->status != 200)
        abort();
    body_release(&response->body);
    exchange_end(exchange);
}

static void run_all(void *arg)
{
    const struct run *run = arg;
    for (unsigned i = 0; i < REQUESTS; i++)
        one_request(run->io, run->chain);
}

static double measure(struct io *io, const struct chain *chain)
{
    struct run run = {io, chain};
    double best = 1e18;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t start_us = clock_now_us();
        coro_start(run_all, &run);
        coro_run_ready();
        double ns = (double)(clock_now_us() - start_us) * 1000 / REQUESTS;
        best = ns < best ? ns : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    char *error = NULL;
    struct io *io = NULL;
    struct io_options io_options = {.kind = IO_KIND_EPOLL};
    if (argc < 2 || io_create(&io, &io_options) < 0)
        return 2;
    struct script_options options = {.io = io, .generation = 1};
    struct site *site = script_load_site(argv[1], &options, &error);
    if (!site) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    double base = 0;
    for (unsigned i = 0; i < site->listener_count; i++) {
        double ns = measure(io, &site->listeners[i]->chain);
        if (i == 0)
            base = ns;
        printf("%-30s %7.0f ns/request  %+7.0f ns\n",
               strchr(site->listeners[i]->addresses[0], ':') + 1, ns, ns - base);
    }
    site_release(site);
    io_destroy(io);
    coro_fini();
    return 0;
}
