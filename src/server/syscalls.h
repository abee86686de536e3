/*
 * --seccomp: workers and probes may make only the system calls that serving and loading a site
 * take. What a site asks for beyond is refused (EPERM) and logged by name, once for each; what
 * nothing but an intruder asks for (execve, ptrace, mount and their like) ends the process, logged
 * as well. io_uring's operations are no system calls: the filter does not see them.
 */
#ifndef SERVER_SYSCALLS_H
#define SERVER_SYSCALLS_H

/* Wants the filter in what is forked later. */
void syscalls_want_filter(void);

/* Puts this process under the filter, if it is wanted, for good: scripts that are loaded later run
 * under it, too. Rings of io_uring have to be set up before. Exits, logged, if that fails. */
void syscalls_filter(void);

#endif
