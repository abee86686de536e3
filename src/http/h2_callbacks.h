/* What nghttp2 reports of a client's connection. */
#ifndef HTTP_H2_CALLBACKS_H
#define HTTP_H2_CALLBACKS_H

#include <nghttp2/nghttp2.h>

/* The callbacks of sessions whose user_data is a struct h2_connection; made once. NULL when memory
 * is exhausted. */
const nghttp2_session_callbacks *h2_callbacks(void);

#endif
