/*
 * The router: a native layer that picks a chain by method, host and path. Routes are built when a
 * site is loaded and only read afterwards. Matching suspends never; the chosen chain may.
 *
 * A pattern is [METHOD ][host]/path. In the path ":name" matches one segment and a final "*" or
 * "*name" matches the rest, if only an empty one. A host is exact or "*.example.com" (any depth).
 * The most specific match wins: exact host, then the longest wildcard host, then none; within a
 * host, segment by segment a literal, then ":name", then "*"; with equal paths a method before
 * none. HEAD is served by GET routes. A path that matches with other methods only is answered 405
 * with Allow (RFC 9110 section 15.5.6); one that matches nothing goes on to the next layer of the
 * chain.
 *
 * Paths are matched in normal form, so that no spelling of a path slips past a route: dot segments
 * removed (RFC 3986 section 5.2.4), %2e among them, repeated slashes merged, percent-encoded octets
 * decoded. An encoded slash (%2F) never separates segments. The path that is forwarded stays as it
 * was received. A malformed escape or %00 is answered 400, a path of more than 128 segments 414.
 */
#ifndef PROXY_ROUTER_H
#define PROXY_ROUTER_H

#include "base/arena.h"
#include "proxy/chain.h"

struct router;

/* An empty router in the arena; NULL when memory is exhausted. */
struct router *router_create(struct arena *arena);

/* Adds a route. The chain is borrowed. Returns 0, or -EINVAL, -EEXIST, -ENOMEM with *error (text in
 * the arena, e.g. `route "GET /a/:b": the same as "GET /a/:c"`). */
int router_add(struct router *router, const char *pattern, const struct chain *chain,
               const char **error);

/* For the summary: number of routes, and each in the order of addition. */
size_t router_count(const struct router *router);
const char *router_pattern(const struct router *router, size_t index);
const struct chain *router_chain(const struct router *router, size_t index);

/* The layer; self is a struct router. */
extern const ml_layer router_layer;

#endif
