/* Distinguished names as texts (RFC 4514): "CN=alice,O=Example". Never suspends. */
#ifndef TLS_NAME_H
#define TLS_NAME_H

#include <sys/types.h>

/* Writes the (first) common name in a subject to `out`, which has room for as many bytes as the
 * subject has; without a NUL. Returns its length, or -1 if there is none. */
ssize_t tls_common_name(const char *subject, char *out);

#endif
