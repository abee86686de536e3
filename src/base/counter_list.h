/*
 * The counters, a line each; counters.h makes enums of them, script/stats.c shows them. To add one
 * is to add a line here, beside those of the same name, and to call counters_add where it happens.
 *
 *   COUNTER(id, name, label, value, help)   only grows: monolake_<name>_total{label="value"}
 *   GAUGE(id, name, label, value, help)     goes up and down: monolake_<name>{label="value"}
 *   UPSTREAM_COUNTER(id, name, help)        of each upstream: monolake_upstream_<name>_total
 *
 * No label: two empty texts. The first line of a name has the help, of which the README's table has
 * the short form. Lua shows a name without label as stats.name, one with as stats.name.value.
 */
/* clang-format off */
#ifndef COUNTER
#define COUNTER(id, name, label, value, help)
#endif
#ifndef GAUGE
#define GAUGE(id, name, label, value, help)
#endif
#ifndef UPSTREAM_COUNTER
#define UPSTREAM_COUNTER(id, name, help)
#endif

COUNTER(CONNECTIONS_ACCEPTED, "connections_accepted", "", "", "Connections of clients that were taken")
GAUGE(CONNECTIONS_OPEN, "connections_open", "", "", "Connections of clients that are open")
COUNTER(REFUSED_DENIED, "connections_refused", "reason", "denied", "Clients that were refused, and why")
COUNTER(REFUSED_SOURCE, "connections_refused", "reason", "connections_per_source", "")
COUNTER(REFUSED_MEMORY, "connections_refused", "reason", "memory", "")
COUNTER(HELD_BACK_BOUND, "accept_pauses", "reason", "connections", "Times that clients were left in the kernel's queue, by what held them back")
COUNTER(HELD_BACK_RATE, "accept_pauses", "reason", "rate", "")
COUNTER(HELD_BACK_FILES, "accept_pauses", "reason", "files", "")
COUNTER(ACCEPT_FAILED, "accept_pauses", "reason", "error", "")
COUNTER(SHED_CLIENTS, "idle_connections_shed", "side", "client", "Idle connections that were closed early, for others to have their descriptors or places")
COUNTER(SHED_PEERS, "idle_connections_shed", "side", "peer", "")
COUNTER(HANDSHAKES_FULL, "handshakes", "result", "full", "TLS handshakes with clients, by how they went")
COUNTER(HANDSHAKES_RESUMED, "handshakes", "result", "resumed", "")
COUNTER(HANDSHAKES_FAILED, "handshakes", "result", "failed", "")
COUNTER(REQUESTS_H1, "requests", "protocol", "h1", "Requests that have come, calls of Thrift included")
COUNTER(REQUESTS_H2, "requests", "protocol", "h2", "")
COUNTER(REQUESTS_THRIFT, "requests", "protocol", "thrift", "")
GAUGE(REQUESTS_ACTIVE, "requests_active", "", "", "Requests and connections of layer 4 that are being served")
COUNTER(RESPONSES_NONE, "responses", "status", "none", "Responses to clients by class of status; none: the client was gone before one began")
COUNTER(RESPONSES_1XX, "responses", "status", "1xx", "")
COUNTER(RESPONSES_2XX, "responses", "status", "2xx", "")
COUNTER(RESPONSES_3XX, "responses", "status", "3xx", "")
COUNTER(RESPONSES_4XX, "responses", "status", "4xx", "")
COUNTER(RESPONSES_5XX, "responses", "status", "5xx", "")
COUNTER(REQUESTS_MALFORMED, "requests_refused", "reason", "head", "Requests that no layer has seen, for their head broke a rule or a limit")
COUNTER(REQUESTS_SHED_ACTIVE, "requests_refused", "reason", "active_max", "")
COUNTER(REQUESTS_SHED_QUEUED, "requests_refused", "reason", "queue_time_max", "")
COUNTER(H2_CALMED_RESETS, "h2_calmed", "reason", "resets", "HTTP/2 connections that were closed with ENHANCE_YOUR_CALM, by what there was too much of")
COUNTER(H2_CALMED_FAULTS, "h2_calmed", "reason", "faults", "")
COUNTER(H2_CALMED_CONTROL, "h2_calmed", "reason", "control", "")
COUNTER(H2_CALMED_ANSWERS, "h2_calmed", "reason", "answers", "")
COUNTER(H2_CALMED_FIELDS, "h2_calmed", "reason", "fields", "")
COUNTER(CLIENT_BYTES_IN, "client_bytes", "direction", "in", "Bytes from and to clients, decrypted where they come by TLS")
COUNTER(CLIENT_BYTES_OUT, "client_bytes", "direction", "out", "")
COUNTER(PEER_BYTES_IN, "peer_bytes", "direction", "in", "Bytes from and to peers of upstreams, decrypted where they come by TLS")
COUNTER(PEER_BYTES_OUT, "peer_bytes", "direction", "out", "")
COUNTER(TUNNELS, "tunnels", "", "", "Tunnels that were begun: layer 4, WebSocket and other upgrades, CONNECT")
GAUGE(TUNNELS_OPEN, "tunnels_open", "", "", "Tunnels that are open")
COUNTER(UDP_FLOWS, "udp_flows", "", "", "Flows of datagrams that were begun")
GAUGE(UDP_FLOWS_OPEN, "udp_flows_open", "", "", "Flows of datagrams that are open")
COUNTER(UDP_FLOWS_REFUSED, "udp_flows_lost", "reason", "refused", "Flows of datagrams that were not begun for flows_max or accept_rate, or ended to make room")
COUNTER(UDP_FLOWS_EVICTED, "udp_flows_lost", "reason", "evicted", "")
COUNTER(UDP_FLOWS_OVER_RATE, "udp_flows_lost", "reason", "rate", "")
COUNTER(UDP_DATAGRAMS, "udp_datagrams", "", "", "Datagrams that clients have sent")
COUNTER(UDP_DROPPED, "udp_datagrams_dropped", "reason", "full", "Datagrams of either side that were dropped: a queue or a socket was full, or they were too long")
COUNTER(UDP_TRUNCATED, "udp_datagrams_dropped", "reason", "length", "")
COUNTER(BUFFER_WAITS, "buffer_waits", "", "", "Receives that waited for a buffer: all that a worker may have were in use, or memory was exhausted")
COUNTER(LOG_LINES_DROPPED, "access_log_lines_dropped", "", "", "Lines of access logs that a full disk or a slow reader did not take")
COUNTER(LOG_MESSAGES_DROPPED, "log_messages_dropped", "", "", "Messages of the log on standard error, and what scripts print, that a full disk or a slow reader did not take")
COUNTER(LAYER_FAILURES, "layer_failures", "", "", "Errors that Lua layers have raised")
GAUGE(LUA_MEMORY_BYTES, "lua_memory_bytes", "", "", "Memory that the Lua of all workers holds, its garbage included")
COUNTER(LUA_MEMORY_RESTARTS, "lua_memory_restarts", "", "", "Times that a worker has loaded the site anew, for its Lua held too much of lua_memory_max")
COUNTER(RELOADS_DONE, "reloads", "result", "done", "Reloads of the site, by how they went")
COUNTER(RELOADS_FAILED, "reloads", "result", "failed", "")
GAUGE(WORKERS, "workers", "", "", "Worker processes that run")
COUNTER(WORKERS_CRASHED, "worker_restarts", "cause", "signal", "Workers that had to be started again, by what ended them")
COUNTER(WORKERS_EXITED, "worker_restarts", "cause", "exit", "")
COUNTER(WORKERS_INTERRUPTED, "workers_silent", "action", "interrupted", "Workers that did not react in time, by what was done to them")
COUNTER(WORKERS_KILLED, "workers_silent", "action", "killed", "")

UPSTREAM_COUNTER(ATTEMPTS, "attempts", "Attempts to have a request, call, connection or flow served by a peer")
UPSTREAM_COUNTER(RETRIES, "retries", "Attempts that followed a failed one")
UPSTREAM_COUNTER(CONNECTS, "connects", "Connections to peers that were begun")
UPSTREAM_COUNTER(CONNECT_FAILURES, "connect_failures", "Connections to peers that could not be made")
UPSTREAM_COUNTER(ERRORS, "errors", "Responses of peers with a status of 500 or more")
UPSTREAM_COUNTER(FAILURES, "failures", "Failures of peers that count for their health")

#undef COUNTER
#undef GAUGE
#undef UPSTREAM_COUNTER
/* clang-format on */
