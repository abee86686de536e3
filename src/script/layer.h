/*
 * The layers that this folder adds to chains: a run of Lua functions, and a fixed response. Both
 * are native layers as all others.
 */
#ifndef SCRIPT_LAYER_H
#define SCRIPT_LAYER_H

#include "monolake.h"
#include "script/state.h"

/* A run of neighbouring Lua functions, composed to one by lua/compose.lua. */
struct lua_run {
    struct script *script;
    int ref;         /* of the function(address, generation) that returns the response's address */
    int recover_ref; /* of the one that does so for (address, generation, error, traceback) */
    bool of_connections; /* its functions are layers of layer 4, which may give no response: 0 */
};

extern const ml_layer lua_layer;

/* For the end of a request, which is its argument: nothing of it may be kept in Lua. Touches
 * existing slots only, so this is safe on any stack, and allocates nothing. */
void script_forget_handle(void *arg);

/* The same response to every request, without entering Lua. */
struct fixed_response {
    uint16_t status;
    struct slice body; /* of the site's arena, as the fields are */
    struct headers headers;
};

extern const ml_layer fixed_layer;

#endif
