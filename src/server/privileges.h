/*
 * Whom the site's code runs as. The supervisor keeps the rights that it was started with, since it
 * binds addresses and starts new programs; scripts run in workers and probes only, which give
 * theirs up before they load one, and can never gain any.
 */
#ifndef SERVER_PRIVILEGES_H
#define SERVER_PRIVILEGES_H

#include <stdbool.h>

/* Notes "USER" or "USER:GROUP" (names; the group defaults to the user's own) for what is forked
 * later. False with *why if there is none of that name, or only root could become it. */
bool privileges_set(const char *text, const char **why);

/* In a new process, before anything of the site: becomes that user, with its groups and without
 * capabilities; without one set, only rules out that more are gained. Exits, logged, if it cannot.
 */
void privileges_drop(void);

#endif
