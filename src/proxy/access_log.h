/*
 * The access log: a line for every request that passes this layer, written when its exchange has
 * ended, or the tunnel that it became. Takes what the client sent (not what later layers made of
 * it) and what it was answered. Of a tunnel (CONNECT, Upgrade) the line also tells how it was:
 *
 *   192.0.2.7 - - [23/Nov/2026:07:00:00 +0000] "GET /chat HTTP/1.1" 101 53211 "-" "curl" 180 12.345
 * ended
 *
 * The bytes sent to the client stand where those of a body do; behind all that the format has come
 * the bytes received from the client, seconds and the reason; in JSON client_bytes and reason.
 */
#ifndef PROXY_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_H

#include "base/arena.h"
#include "monolake.h"

#include <stdbool.h>

struct io;
struct log_sink;
struct tunnel_note;
struct tunnel_state;

enum access_log_format {
    ACCESS_LOG_COMBINED, /* as Apache and nginx write it; bytes are of the body that was sent */
    ACCESS_LOG_JSON,     /* an object a line: time, id, remote, method, target, host, protocol,
                            status, bytes (of the body), duration_ms, referer, user_agent, error */
    ACCESS_LOG_TEXT,     /* of layer 4, see l4/access_log.h, which has JSON of its own, too */
};

struct access_log {
    struct log_sink *sink; /* NULL in a site that is only checked */
    enum access_log_format format;
};

/* Makes an access log in a site's arena, which releases it; target as in log_sink_open. With `io`
 * NULL it is only checked that the target can be written to. Returns NULL and points *error at why.
 */
struct access_log *access_log_create(struct arena *arena, struct io *io,
                                     enum access_log_format format, const char *target,
                                     const char **error);

struct chain;
struct request;

/* Writes a line about a request that the chain will not see to those of its logs that every request
 * passes: to the first layers of the chain. Of the request there is what could be read. */
void access_log_refused(const struct chain *chain, const struct request *request, const char *why);

/* Makes the notes of a tunnel of HTTP that another process has begun: its lines, which are owed
 * here from now on. False if memory is exhausted or a log cannot be opened: then there are none. */
bool access_log_adopt(struct io *io, const struct tunnel_state *state, struct tunnel_note **notes);

/* The layer; its instance is a struct access_log. */
extern const ml_layer access_log_layer;

#endif
