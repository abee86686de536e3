/* What peers are told of a client before all else: headers of the PROXY protocol, as `send_proxy`
 * of their upstream says. Never suspends. */
#ifndef PROXY_SEND_PROXY_H
#define PROXY_SEND_PROXY_H

struct peer_greeting;
struct request;
struct upstream_config;

/*
 * Makes what a connection for this request begins with, in its arena; nothing if the upstream does
 * not ask for it. Connections are of one client, for a header speaks for all that follows it: the
 * identity is the header without what is of the connection itself (unique id, checksum). What the
 * client's TLS does not tell, a proxy in front may have told. Returns 0, -ENOMEM, or -EMSGSIZE if
 * the header would be too long.
 */
int send_proxy_greet(const struct upstream_config *config, const struct request *request,
                     struct peer_greeting *greeting);

#endif
