/* Certificates, TLS contexts and what a handshake agreed on, for Lua. */
#ifndef SCRIPT_TLS_H
#define SCRIPT_TLS_H

#include "script/state.h"

struct tls_hello_hook;

/* core.certificate, core.tls_server, core.tls_client, core.tls_info, core.tls_default_library,
 * core.tls_system_stamp. */
extern const luaL_Reg tls_functions[];

/* Has the function at `index` asked for certificates; in the memory of the site that is built. */
struct tls_hello_hook *script_hello_hook(lua_State *L, int index);

#endif
