/*
 * Requests and responses, the same for every HTTP version. They live in the arena of their
 * exchange. Never suspends.
 */
#ifndef HTTP_MESSAGE_H
#define HTTP_MESSAGE_H

#include "base/arena.h"
#include "http/body.h"
#include "http/headers.h"
#include "net/address.h"

#include <stdbool.h>
#include <stdint.h>

enum http_method {
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_PUT,
    METHOD_DELETE,
    METHOD_CONNECT,
    METHOD_OPTIONS,
    METHOD_TRACE,
    METHOD_PATCH,
    METHOD_OTHER /* a valid token that is none of these: see method_name */
};

enum http_version { HTTP_1_0 = 10, HTTP_1_1 = 11, HTTP_2 = 20, HTTP_3 = 30 };

enum { REQUEST_PARAMS_MAX = 16 };

/* One named part of the path that a route matched. */
struct param {
    struct slice name;
    struct slice value; /* percent-decoded */
};

struct exchange;
struct proxy_info;
struct stream;
struct thrift_message;
struct tls_session;

struct request {
    uint32_t generation; /* first: FFI handles compare it to learn that the request is over */
    enum http_method method;
    enum http_version version; /* as received */
    struct slice method_name;  /* "GET" */
    struct slice path;         /* absolute path without query, as received; "*" for OPTIONS * */
    struct slice path_rest;    /* what a route's final wildcard matched, in normal form; ptr NULL
                                  when no route has one */
    struct slice query;        /* behind "?", without it; ptr NULL when there is no "?" */
    struct slice scheme;       /* "http" or "https" */
    struct slice authority;    /* host[:port]: of the target if absolute, else of Host */
    struct headers headers;
    struct headers trailers; /* filled when the body has ended */
    struct body body;
    unsigned param_count;         /* of params, below */
    bool keep_alive;              /* the client's side allows another request */
    bool expects_continue;        /* Expect: 100-continue, and no 100 has been sent */
    bool wants_upgrade;           /* Upgrade with Connection: upgrade (RFC 9110 section 7.8) */
    const struct address *remote; /* the client; borrowed from the connection */
    const struct address *local;
    struct proxy_info *proxied;    /* what a proxy in front has said, or NULL; borrowed */
    const struct tls_session *tls; /* of the client's connection; NULL if it is in the clear */
    struct thrift_message *thrift; /* what it is in Thrift; NULL: a request of HTTP */
    uint64_t id;                   /* unique in this worker; never 0 */
    struct arena *arena;           /* of the exchange */
    struct exchange *exchange;     /* owner */
    struct param params[REQUEST_PARAMS_MAX]; /* last: not cleared between requests */
};

/* Why a response is one of ours for a failed upstream. */
enum response_error {
    RESPONSE_OK,
    RESPONSE_CONNECT_FAILED, /* no peer could be reached */
    RESPONSE_NO_PEER,        /* none is up */
    RESPONSE_TIMED_OUT,      /* an upstream deadline passed */
    RESPONSE_RESET,          /* the origin closed without a complete answer */
    RESPONSE_MALFORMED,      /* the origin broke the protocol */
    RESPONSE_LAYER_FAILED,   /* a layer raised an error or gave no response */
    RESPONSE_OVERLOADED,     /* a bound of ours was reached */
    RESPONSE_BODY_TOO_LARGE,
};

struct response {
    uint16_t status;           /* 200..599, or 101 with a tunnel */
    enum response_error error; /* set on responses made for failures */
    struct slice error_text;   /* for the log and res.error: what, where */
    struct headers headers;
    struct headers trailers; /* filled when the body has ended */
    struct body body;
    struct stream *tunnel; /* 101 or CONNECT: the upstream's stream, taken over; else NULL */
    struct thrift_message *thrift; /* what it is in Thrift, or NULL */
    struct request *request;       /* what it answers */
    struct arena *arena;           /* of the exchange */
};

/* A response without fields or body, in the request's arena; NULL when memory is exhausted. */
struct response *response_create(struct request *request, uint16_t status);

/* A plain-text response; the text is copied. NULL when memory is exhausted. */
struct response *response_create_text(struct request *request, uint16_t status, struct slice text);

/* The response for a failure: text/plain, status and short public text by the error, e.g. 502;
 * `text` goes to error_text (copied), never to the client. */
struct response *response_create_error(struct request *request, uint16_t status,
                                       enum response_error error, struct slice text);

/* Gives the response a tunnel to an origin, which is reset at the end of the exchange unless
 * somebody has taken it (response->tunnel is NULL then). Returns 0 or -ENOMEM. */
int response_set_tunnel(struct response *response, struct stream *tunnel);

/* "Not Found" for 404; "" for statuses that have no registered phrase. */
struct slice http_reason_phrase(uint16_t status);

/* True if a response with that status to that method has no body whatever its fields say
 * (RFC 9112 section 6.3): HEAD, 1xx, 204, 304, and 2xx to CONNECT. */
bool http_response_bodyless(enum http_method method, uint16_t status);

/* True if the request may be sent again after a connection broke (RFC 9110 section 9.2.2). */
bool http_method_idempotent(enum http_method method);

enum http_method http_method_of(struct slice name);

/* "Mon, 23 Nov 2026 07:00:00 GMT" of now; formatted once a second (RFC 9110 section 5.6.7). */
struct slice http_date_now(int64_t now_ms);

#endif
