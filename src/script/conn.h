/*
 * Connections of layer 4 for Lua: what conn.lua calls through the FFI (as access.h does for
 * messages), the verb "splice", and on_close.
 */
#ifndef SCRIPT_CONN_H
#define SCRIPT_CONN_H

#include "monolake.h"
#include "script/access.h"

#include <lua.h>
#include <stdint.h>

struct call;

/* 1: that response carries the connection's peer; 2: a layer has closed it; 0: neither; or a
 * negative ACCESS_. The response is an address or 0. */
ML_API int script_conn_state(intptr_t request, uint32_t generation, intptr_t response);

/* Ends it, by RST if `reset`, else by FIN. */
ML_API int script_conn_end(intptr_t request, uint32_t generation, int reset);

/* Hands it on to a struct l4_http_site when its chain has returned; ACCESS_INVALID: TLS inside TLS;
 * ACCESS_NONE: it is a flow of datagrams.
 */
ML_API int script_conn_serve(intptr_t request, uint32_t generation, void *http);

/* Has VALUE_CONN_CLOSED called when it has ended. */
ML_API int script_conn_watch(intptr_t request, uint32_t generation);

/* The first datagram of a flow whose layers are running; ACCESS_NONE if there is none, or this is
 * no flow. */
ML_API int script_conn_datagram(intptr_t request, uint32_t generation, struct script_text *out);

/* Is it a flow of datagrams? */
ML_API int script_conn_is_flow(intptr_t request, uint32_t generation);

/* The verb "splice": request's address, struct site_upstream, idle and total milliseconds,
 * responses_max, or nil.
 */
void conn_take_splice(struct call *call, lua_State *L);
void conn_perform_splice(struct call *call);

#endif
