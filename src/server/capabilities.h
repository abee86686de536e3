/*
 * What of root's power a process has, as sets of capabilities (capabilities(7)): bit N stands for
 * capability N. They are only ever taken away here.
 */
#ifndef SERVER_CAPABILITIES_H
#define SERVER_CAPABILITIES_H

#include <stdint.h>

#define CAPABILITY(number) (UINT64_C(1) << (number))

/* Rules out that this process, or what it executes, has others again (the bounding set). Who may
 * not say so (CAP_SETPCAP) has no power over it and none to lose: nothing changes then. */
void capabilities_bound(uint64_t kept);

/* Gives up all others, those that would be handed on (inheritable, ambient) too. Returns 0 or a
 * negative errno. */
int capabilities_keep(uint64_t kept);

#endif
