/*
 * The access log: a line for every request that passes this layer, written when its exchange has
 * ended. Takes what the client sent (not what later layers made of it) and what it was answered.
 */
#ifndef PROXY_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_H

#include "base/arena.h"
#include "monolake.h"

struct io;
struct log_sink;

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

/* The layer; its instance is a struct access_log. */
extern const ml_layer access_log_layer;

#endif
