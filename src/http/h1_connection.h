/* A client's HTTP/1.x connection: shared by h1_server.c (its life) and h1_response.c (answering).
 */
#ifndef HTTP_H1_CONNECTION_H
#define HTTP_H1_CONNECTION_H

#include "http/connection.h"
#include "http/h1_input.h"

struct h1_connection {
    struct connection base; /* first */
    struct h1_input input;
    struct exchange *exchange; /* under way, or NULL */
    uint32_t requests;         /* complete heads so far */
    struct tunnel_note *notes; /* who waits for the end of the tunnel that it has become; owned */
};

/* What becomes of the connection behind a response. */
enum h1_verdict {
    H1_KEEP,   /* another request may follow */
    H1_LINGER, /* nothing more is answered; what still arrives is drained, then it is closed */
    H1_ABORT,  /* reset: the client must not take what it got for a complete response */
    H1_TUNNEL, /* the response opened a tunnel */
};

/* Sends the response to the exchange's request. Suspends. */
enum h1_verdict h1_send_response(struct h1_connection *connection, struct exchange *exchange,
                                 struct response *response);

/* Sends an interim response (1xx) if the client's version knows them. Suspends. */
int h1_send_interim(struct exchange *exchange, uint16_t status, const struct headers *headers);

/* Answers a head that was refused; the connection is to be closed behind it. Suspends. */
void h1_send_refusal(struct h1_connection *connection, uint16_t status, const char *why);

#endif
