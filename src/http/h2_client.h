/*
 * A connection to an HTTP/2 origin: many exchanges at a time, each a stream. Knows nothing of peers
 * or pools: src/proxy/peer_h2.c keeps, shares and counts these.
 *
 *   open ──▶ taking streams ──(GOAWAY, silence)──▶ draining ──last stream──▶ ended ──▶ closed
 *                  └──(reset, broken protocol, no answer to a ping)────────────▲
 */
#ifndef HTTP_H2_CLIENT_H
#define HTTP_H2_CLIENT_H

#include "base/list.h"
#include "http/client_exchange.h"
#include "http/client_tls.h"
#include "http/h2_transport.h"

#include <stdbool.h>
#include <stdint.h>

struct h2_client {
    struct stream stream;
    struct h2_transport transport;
    struct list streams;   /* h2_client_stream.link: open, or held by an exchange */
    uint32_t stream_count; /* of them */
    uint32_t streams_max;  /* our bound; the origin may have a lower one */
    uint32_t ping_ms;      /* silence after which the origin is asked for a sign; 0: never */
    uint64_t heard_bytes;  /* when the timer for that was started */
    struct timer ping;     /* while ping_ms */
    const char *why;       /* what the origin has done wrong (static text), or NULL */
    bool secure;           /* behind TLS */
    bool doubtful;         /* takes no streams until something is heard */
    bool pinged;           /* and no answer yet */
    bool draining;         /* takes no more streams */
    bool ended;            /* the transport has: closed when the last exchange lets go */
    bool settled;          /* the origin has said what it allows, which is not nothing */
    bool refusing;         /* it has refused a stream, and answered none since */
    struct coro *opener;   /* waits for it to be settled, or NULL */
    bool answered;         /* a stream was answered: the connection is good */
    struct list link;      /* for the owner's pool */
    struct timer idle;     /* for the owner's pool */
    void *owner;           /* the pool */
    void (*on_idle)(struct h2_client *client);   /* the last stream has ended */
    void (*on_closed)(struct h2_client *client); /* before its memory is freed */
};

struct h2_client_options {
    uint32_t streams_max;
    uint32_t head_max_bytes; /* of a response; told to the origin */
    uint32_t send_stall_ms;  /* an origin whose TCP takes nothing for so long is given up */
    uint32_t ping_ms;        /* as in the struct above */
    bool may_decline;        /* the origin was offered HTTP/1.1, too */
};

/* Connects: by TLS if there is a context, and then HTTP/2 must be agreed on; with prior knowledge
 * in the clear. Waits for the origin's SETTINGS to allow streams, so that no more are begun than it
 * takes, and what cannot speak HTTP/2 gets no request. Returns 0 or a negative errno:
 * -EPROTONOSUPPORT when an origin that `may_decline` HTTP/2 does. Suspends. */
int h2_client_open(struct h2_client **out, struct io *io, const struct address *address,
                   const struct client_tls *tls, const struct h2_client_options *options,
                   int64_t deadline);

/* May an exchange begin on it now? */
bool h2_client_has_room(const struct h2_client *client);

/* Begins an exchange. NULL when memory is exhausted. */
struct client_exchange *h2_client_begin(struct h2_client *client);

/* The connection of an exchange that it began. */
struct h2_client *h2_client_of(const struct client_exchange *exchange);

/* Ends an exchange; its stream is reset unless the response was read to its end and the request is
 * `complete`. */
void h2_client_end_exchange(struct client_exchange *exchange, bool complete);

/* Says goodbye and closes when the exchanges under way have ended. */
void h2_client_drain(struct h2_client *client);

/* Closes one without exchanges at once; by a reset no port is left behind that waits for its end.
 */
void h2_client_close(struct h2_client *client, bool reset);

#endif
