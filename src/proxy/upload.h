/*
 * The sending of a request's body while its response is awaited, in a coroutine of its own: an
 * origin may answer before it has read everything. Suspends.
 */
#ifndef PROXY_UPLOAD_H
#define PROXY_UPLOAD_H

#include "http/client_exchange.h"

#include <stdbool.h>
#include <stdint.h>

struct upload {
    struct request *request;
    struct client_exchange *client;
    bool wait_continue;  /* hold back until upload_continue */
    struct coro *coro;   /* runs while active */
    struct coro *waiter; /* suspended in upload_join, or NULL */
    bool active;
    bool awaits_client;  /* it has nothing to send at present */
    bool finished;       /* all was sent, framing included */
    int client_error;    /* the client's side failed: negative errno */
    int peer_error;      /* the origin's side failed */
    int64_t progress_ms; /* when something was last sent */
};

/* Begins in the background. Returns 0 or -ENOMEM. */
int upload_start(struct upload *upload);

/* The client has been told to go on: the body will come. */
void upload_continue(struct upload *upload);

/* Waits for its end for a moment, or with `cancel` not at all, then ends it. Harmless if it never
 * began. */
void upload_join(struct upload *upload, bool cancel);

#endif
