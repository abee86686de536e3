/*
 * A proxy without Lua in a child process: the native chain [upstream] over HTTP/1, between a
 * scripted client and a scripted origin in the test itself, both plain blocking sockets.
 */
#ifndef SPEC_PROXY_FIXTURE_H
#define SPEC_PROXY_FIXTURE_H

#include "io/io.h"
#include "proxy/upstream.h"

#include <stddef.h>
#include <sys/types.h>

struct fixture {
    pid_t child;
    int origin; /* listening */
    int proxy_port;
    int origin_port;
};

/* Starts it; `tune` (may be NULL) changes the upstream's settings. */
void fixture_start(struct fixture *fixture, enum io_kind kind,
                   void (*tune)(struct upstream_config *config));

/* Ends it and asserts that it ended well (no crash, no leak report). */
void fixture_stop(struct fixture *fixture);

int fixture_connect(const struct fixture *fixture);
int fixture_accept(const struct fixture *fixture);

/* True if no connection reaches the origin for 100 ms. */
int fixture_origin_untouched(const struct fixture *fixture);

void send_text(int fd, const char *text);

/* Reads until `text` has been seen (returned bytes include it), asserting on timeout or EOF. The
 * result is static and holds everything read by this call. */
const char *read_until(int fd, const char *text);

/* Reads to the end of the stream. Returns what came; *reset tells whether it ended by a reset. */
const char *read_to_end(int fd, int *reset);

void close_with_reset(int fd);

#endif
