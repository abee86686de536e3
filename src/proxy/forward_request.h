/* The request as an origin gets it: fields rewritten per RFC 9110 section 7. Pure, but for a first
 * look at the body. */
#ifndef PROXY_FORWARD_REQUEST_H
#define PROXY_FORWARD_REQUEST_H

#include "http/h1_write.h"
#include "proxy/upstream.h"

enum { INLINE_BODY_MAX_BYTES = 65536 }; /* a body this small may go along with the head */

/* Serialises the head of `request` for `peer_text` into `out` (its arena set). */
void forward_write_head(struct h1_out *out, const struct request *request,
                        const struct upstream_config *config, const char *peer_text);

/* Is the body sent chunked? Otherwise its length is declared. */
bool forward_chunked(const struct request *request);

/* Shall the tunnel that the client asks for be asked of the origin? h2c is never relayed. */
bool forward_wants_upgrade(const struct request *request);

#endif
