/* Request targets (RFC 9112 section 3.2) and authorities (RFC 3986 section 3.2). Pure. */
#ifndef HTTP_H1_TARGET_H
#define HTTP_H1_TARGET_H

#include "http/message.h"

/* Takes a target apart by its form, which must fit the method: fills path and query, and
 * *authority if the target has one. Returns 0, or -1 with *why (static text). */
int h1_target_parse(struct request *request, struct slice target, struct slice *authority,
                    const char **why);

/* host[:port] without user information: a registered name, an IPv4 or a bracketed IPv6 address. */
bool h1_authority_valid(struct slice authority);

#endif
