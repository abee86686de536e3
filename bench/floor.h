/* The kinds of bench/floor. */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <stdbool.h>

/* Each serves a listening socket and never returns. */
void floor_uring(int listener);
void floor_epoll(int listener, bool by_splice);

/* Makes a client's connection ready, and one to the origin for it, which is returned. Ends the
 * program if it fails. */
int floor_connect(int client);

#endif
