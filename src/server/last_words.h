/*
 * What a worker says before it ends against its will, and when it is asked why it does not react:
 * which request it is at, where the program stands, and, from Lua that is not compiled, an error
 * in the script that holds it up.
 */
#ifndef SERVER_LAST_WORDS_H
#define SERVER_LAST_WORDS_H

#include <signal.h>
#include <stdint.h>

/* The supervisor's question; who does not react within LAST_WORDS_MS is asked once more, and killed
 * LAST_PLACE_MS later. */
enum { LAST_WORDS_SIGNAL = SIGXCPU, LAST_WORDS_MS = 500, LAST_PLACE_MS = 250 };

/* Sets up the handlers, in a worker. `script_time_ms` is how long a layer may hold it up; for the
 * message. */
void last_words_prepare(uint32_t script_time_ms);

/* Logs which request it is at, if it is at one. */
void last_words_tell_request(void);

#endif
