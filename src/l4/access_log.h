/*
 * The access log of layer 4: a line for every connection that passes this layer, written when it
 * has ended, whatever became of it. Text:
 *
 *   192.0.2.7:50112 [23/Nov/2026:07:00:00 +0000] 10.0.0.1:3306 10.0.0.5:3306 180 53211 12.345 ended
 *
 * client, time, address that it connected to, peer ("-": none), bytes from the client, bytes from
 * the peer, seconds, reason, for a flow of datagrams their numbers from the client and from the
 * peer, and behind it in quotes what went wrong, if something did. JSON: an object a line: time,
 * id, remote, local, peer (null: none), client_bytes, peer_bytes, duration_ms, reason, error.
 */
#ifndef L4_ACCESS_LOG_H
#define L4_ACCESS_LOG_H

#include "monolake.h"

#include <stdbool.h>

struct l4_conn;
struct tunnel_state;

/* The layer; its instance is a struct access_log. */
extern const ml_layer l4_access_log_layer;

/* Notes the lines that are owed for a connection that is to move to another process; none is
 * written here any more when it has. False if that process could not be told of all. */
bool l4_logs_describe(const struct l4_conn *conn, struct tunnel_state *state);

/* Owes these lines from now on. False if memory is exhausted or a log cannot be opened. */
bool l4_logs_adopt(struct l4_conn *conn, const struct tunnel_state *state);

#endif
