/*
 * Where lines of access logs go: a file, standard output or standard error. Lines are gathered per
 * worker and written together, whole lines only, when LOG_SINK_FLUSH_MS have passed or the buffer
 * is full. A reader that stalls or a full disk costs lines, which are counted and told of in the
 * error log, never a request's time. Never suspends; no write waits.
 */
#ifndef PROXY_LOG_SINK_H
#define PROXY_LOG_SINK_H

#include "base/slice.h"

struct io;
struct log_sink;

enum { LOG_SINK_BYTES_MAX = 65536, LOG_SINK_FLUSH_MS = 200 };

/* Opens a sink: "stdout", "stderr", or the path of a file that is made if it is missing. The same
 * target gives the same sink. Returns 0 or a negative errno. */
int log_sink_open(struct log_sink **sink, struct io *io, const char *target);

/* Gives it back; the last user's release writes what is left and closes it. */
void log_sink_release(struct log_sink *sink);

/* What it was opened as. */
struct slice log_sink_target(const struct log_sink *sink);

/* Adds a line, which ends in a newline. */
void log_sink_write(struct log_sink *sink, struct slice line);

/* Can that target be written to? Returns 0 or a negative errno. */
int log_sink_check(const char *target);

/* Opens every file anew, for log rotation; one that cannot be opened stays as it was. */
void log_sinks_reopen(void);

/* Writes what is gathered; for the end of the process. */
void log_sinks_flush(void);

#endif
