/*
 * Whom the site's code runs as, and what each process may do. The supervisor keeps of the rights
 * that it was started with what it needs to bind addresses and to start workers and new programs;
 * scripts run in workers and probes only, which give theirs up before they load one, and can never
 * gain any.
 */
#ifndef SERVER_PRIVILEGES_H
#define SERVER_PRIVILEGES_H

#include <stdbool.h>

/* Notes "USER" or "USER:GROUP" (names; the group defaults to the user's own) for what is forked
 * later. False with *why if there is none of that name, or only root could become it. */
bool privileges_set(const char *text, const char **why);

/* In the supervisor, before anything else: gives up what it will not need, for good, so that a new
 * program in its place (SIGUSR2) has the same. Exits, logged, if it cannot. */
void privileges_limit(void);

/* In a new process, before anything of the site: becomes that user, with its groups and without
 * capabilities; without one set gives up capabilities, all but root's to reach all files. Rules out
 * that more are gained. Exits, logged, if it cannot. */
void privileges_drop(void);

#endif
