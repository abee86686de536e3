/*
 * The supervisor: binds listeners, starts and watches workers, takes signals, drives reloads.
 * Touches no traffic and runs no Lua.
 *
 *   reload:  idle ──HUP──▶ probing ──ok──▶ preparing ──all prepared──▶ committing ──all ready──▶
 * idle │ error          │ one failed, late or died ▼                ▼ idle (old generation serves
 * on, the reason is logged)
 */
#ifndef SERVER_SUPERVISOR_H
#define SERVER_SUPERVISOR_H

#include "server/options.h"
#include "server/probe.h"

/* Serves the site until a signal ends it. `probed` is what the first probe found, and is taken
 * over. Returns the process's exit code. */
int supervisor_main(const struct options *options, struct probe_result *probed);

#endif
