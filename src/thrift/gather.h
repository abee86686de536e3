/* Bodies as a whole: a message of Thrift says its length beforehand. */
#ifndef THRIFT_GATHER_H
#define THRIFT_GATHER_H

#include "base/arena.h"
#include "http/body.h"

#include <stdint.h>

/* Reads a body to its end, or at most `max` bytes of it, into the arena; the body is still to be
 * released. Returns 0, -EMSGSIZE when there is more (*out then holds the first `max` bytes),
 * -ENOMEM, or what reading it gives. Suspends. */
int thrift_gather(struct body *body, struct arena *arena, uint32_t max, struct slice *out);

#endif
