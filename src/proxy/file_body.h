/* A response body that is read from a file while it is sent. Reading may suspend. */
#ifndef PROXY_FILE_BODY_H
#define PROXY_FILE_BODY_H

#include "http/message.h"

#include <stdint.h>

/* Makes the response's body of `count` bytes (at least 1) of a file from `offset` on. Owns the
 * descriptor from now on, whatever it returns: 0 or -ENOMEM. */
int file_body_init(struct response *response, int fd, uint64_t offset, uint64_t count);

#endif
