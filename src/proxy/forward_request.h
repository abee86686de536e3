/* The request as an origin gets it: fields rewritten per RFC 9110 section 7. Pure. */
#ifndef PROXY_FORWARD_REQUEST_H
#define PROXY_FORWARD_REQUEST_H

#include "http/client_exchange.h"
#include "proxy/upstream.h"

/* Makes the head of `request` for the peer `peer_text`. Returns 0 or -ENOMEM. */
int forward_make_head(struct client_head *head, const struct request *request,
                      const struct upstream_config *config, const char *peer_text);

/* May the request be sent again, though an origin may have acted on it already? */
bool forward_idempotent(const struct request *request, const struct upstream_config *config);

/* Shall the tunnel that the client asks for be asked of the origin? h2c is never relayed. */
bool forward_wants_upgrade(const struct request *request);

#endif
