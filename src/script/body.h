/*
 * Bodies that Lua makes: an iterator's chunks, or another body's pieces as a function changes them.
 * The functions stand in the request's handle; a body knows them by index. Reading suspends as the
 * function does.
 */
#ifndef SCRIPT_BODY_H
#define SCRIPT_BODY_H

#include "http/message.h"

#include <stdbool.h>

/* Is a function of Lua making a piece of this body now? Then nobody may replace it. */
bool script_body_running(const struct body *body);

/* Moves a body out of its message, which is left with an empty one; it is released with the
 * request (a release may suspend, which is not possible where Lua runs). NULL when memory is
 * exhausted. */
struct body *script_body_take(struct request *request, struct body *body);

/* Makes `body` what the handle's function `index` gives. With `map` the function is fed with the
 * present body; without, that is taken. Returns 0, -ENOMEM, or -EINVAL: too many functions feed
 * each other. */
int script_body_attach(struct request *request, struct body *body, int index, bool map);

#endif
