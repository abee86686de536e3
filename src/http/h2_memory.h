/* Memory for nghttp2's sessions, which make and free half a dozen small things for each stream:
 * base/blocks.h in the library's terms. */
#ifndef HTTP_H2_MEMORY_H
#define HTTP_H2_MEMORY_H

#include <nghttp2/nghttp2.h>

/* For nghttp2_session_server_new3 and _client_new3. */
nghttp2_mem *h2_memory(void);

#endif
