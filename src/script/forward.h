/*
 * Requests that Lua layers send by themselves: their own, to an upstream that they choose
 * (req:forward), and further ones (req:fetch), each an exchange of its own that ends with the one
 * whose layer has asked.
 */
#ifndef SCRIPT_FORWARD_H
#define SCRIPT_FORWARD_H

#include "script/access.h"
#include "script/run.h"

/* Makes a request without fields or body: GET /, for the host that the given one asks for, by the
 * same client. A timeout of 0 leaves it as long as that one has. Returns its address or a negative
 * ACCESS_. Never suspends. */
ML_API double script_fetch_begin(intptr_t request, uint32_t generation, double timeout_ms,
                                 uint32_t *own_generation);

/* The verb "forward": (request of the call, upstream of the site, request to be sent, and if that
 * is another one how many bytes the body of its response may have). */
void forward_take(struct call *call, lua_State *L);
void forward_perform(struct call *call);

#endif
