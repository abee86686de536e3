/*
 * Memory for nghttp2's sessions. Of each stream the library makes half a dozen small things and
 * frees them within a millisecond; with hundreds of streams at once that is more than malloc keeps
 * at hand. Freed blocks of a few sizes are kept here instead, for all sessions of the process
 * together.
 */
#ifndef HTTP_H2_MEMORY_H
#define HTTP_H2_MEMORY_H

#include <nghttp2/nghttp2.h>

/* For nghttp2_session_server_new3 and _client_new3. */
nghttp2_mem *h2_memory(void);

#endif
