/* What is reported of a client's connection while it is fed and written from. */
#ifndef HTTP_H2_CALLBACKS_H
#define HTTP_H2_CALLBACKS_H

#include "http/h2_transport.h"

/* The callbacks of sessions whose user_data is a struct h2_connection; made once. NULL when memory
 * is exhausted. */
const nghttp2_session_callbacks *h2_callbacks(void);

/* For the transport's ops. */
void h2_callbacks_frame_begun(struct h2_transport *transport, const struct h2_frame_head *head);
void h2_callbacks_flooded(struct h2_transport *transport);

#endif
