/* What another process has had of the CPUs: tells one that computes from one that is kept from it.
 */
#ifndef SERVER_CPU_TIME_H
#define SERVER_CPU_TIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How long it has computed since its start, in ms. Negative errno if there is no such process. */
int64_t cpu_time_ms(pid_t pid);

/* Would it compute now if it were let? Not if it sleeps, or waits for a disk. */
bool cpu_time_wanted(pid_t pid);

#endif
