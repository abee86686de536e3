/*
 * One exchange: a request, its way through the chain and its response, whatever the protocol
 * version. Exchanges come from a pool whose addresses are never given back, so that a handle in Lua
 * may compare generations safely long after the request ended.
 */
#ifndef HTTP_EXCHANGE_H
#define HTTP_EXCHANGE_H

#include "base/arena.h"
#include "base/list.h"
#include "http/message.h"

#include <stdbool.h>
#include <stdint.h>

struct coro;
struct io;
struct exchange;
struct exchange_slab;
struct tunnel_note;
struct tunnel_result;

/* What a protocol version does for its exchanges; h1_server.c, h2_server.c. */
struct exchange_codec {
    /* Sends an interim response (1xx) at once. Returns 0 or a negative errno. May suspend. */
    int (*send_interim)(struct exchange *exchange, uint16_t status, const struct headers *headers);
};

/* Of exchanges whose interim responses nobody waits for: drops them. */
extern const struct exchange_codec exchange_codec_silent;

/* What serves requests: the chain of one generation of a listener. */
struct service {
    /* Answers a request, in its coroutine; may suspend. NULL only if the exchange is cancelled. */
    struct response *(*handle)(struct service *service, struct request *request);
    /* Held by every exchange that began on it. */
    void (*retain)(struct service *service);
    void (*release)(struct service *service);
    /* Hears of a request that it will not see, since its head broke a rule or a limit; of the
     * request there is what could be read. May be NULL. */
    void (*refused)(struct service *service, struct request *request, const char *why);
};

/* Which bound of its listener stands against a request. */
enum overload { OVERLOAD_NONE, OVERLOAD_ACTIVE, OVERLOAD_QUEUED };

struct exchange {
    struct request request; /* first, so that a request's address is its exchange's */
    struct arena arena;     /* reset when the exchange ends */
    struct io *io;
    struct coro *coro; /* the coroutine it runs in */
    const struct exchange_codec *codec;
    void *connection;                 /* for the codec */
    struct service *service;          /* retained */
    enum http_method received_method; /* frames the response, whatever layers make of the method */
    uint16_t sent_status;             /* of the final response; 0: none was begun */
    int64_t started_us;               /* monotonic */
    int64_t total_deadline;           /* monotonic milliseconds; every wait is bounded by it */
    uint64_t bytes_sent;              /* of the response's body, without what frames it */
    enum overload overload;           /* then it is answered 503 at once */
    bool became_tunnel;               /* and is no longer counted as active */
    /* Whoever may still be reading the request's body in the background, or NULL. */
    void *body_user;
    void (*end_body_use)(void *body_user); /* may suspend */
    struct slice sent_body; /* a whole small body that was sent on: it can be sent again */
    /* How the tunnel that it became has ended, or NULL; in its arena. */
    const struct tunnel_result *tunnel;
    /* Where the tunnel leads that begins when the exchange ends, or NULL. Whoever wants to know how
     * it ends leaves a note. */
    struct stream *tunnel_peer;
    struct tunnel_note *notes;
    struct slice logged;            /* by layers: further members of its JSON lines; in its arena */
    const struct request *asked_by; /* whose layer has made it (req:fetch), or NULL */
    void *script;                   /* the Lua side of this request, or NULL; for src/script */
    struct list link;               /* in the worker's list of active exchanges, or of idle ones */
    struct exchange_slab *slab;
};

/* Takes an exchange from the pool; request.generation is already valid. NULL when exhausted. */
struct exchange *exchange_begin(struct io *io);

/* Ends it: releases bodies and service, runs the arena's clean-ups, ends the generation. */
void exchange_end(struct exchange *exchange);

/* Makes the request's body its layers' again: ends the sending of it that may still go on behind an
 * early response. To be called before the body is read, replaced or sent once more. May suspend. */
void exchange_reclaim_body(struct exchange *exchange);

/* The one whose coroutine runs, or NULL. */
const struct exchange *exchange_running(void);

/* From now on it only carries bytes to and fro, which may be none for hours: it counts no longer as
 * one that there is work to do for. */
void exchange_becomes_tunnel(struct exchange *exchange);

/* Gives the memory back of those that lie unused since the last call, but of a bounded number.
 * Returns true if there was any. */
bool exchange_trim(void);

/* How many are active in this worker, but for those that have become tunnels. */
uint32_t exchange_active_count(void);

#endif
