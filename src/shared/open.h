/*
 * The dictionaries that this process has open, by name. In a worker they are those that the
 * supervisor offers; anywhere else (the probe, a plain LuaJIT) each is the process's own, with
 * which it behaves the same. Never suspends.
 */
#ifndef SHARED_OPEN_H
#define SHARED_OPEN_H

#include "shared/dict.h"

/* From now on only what is offered can be opened. */
void shared_only_offers(void);

/* The memory of a dictionary, for whoever opens it; takes the descriptor. */
void shared_offer(int fd);

/* So is what is open: for another look at a site that serves. */
void shared_offer_open(void);

/* Everything was opened that was to be: what is left is closed. */
void shared_forget_offers(void);

/* Opens it, or shares it with those of this process who have. Returns 0 or a negative errno:
 * -ENOENT, it was not offered. */
int shared_open(const struct shared_spec *spec, struct shared_dict **out);
void shared_close(struct shared_dict *dict);

/* Calls `fn` for each that is open. */
void shared_each(void (*fn)(const struct shared_spec *spec, void *arg), void *arg);

#endif
