/*
 * The error log: one line a message on standard error, bounded in length, written in one call so
 * that lines of several processes never mix. It never waits: messages that standard error does not
 * take are dropped, counted and told of when it takes some again (output.h). Never suspends. (The
 * access log is proxy/access_log.)
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Longest line that is written; the rest is cut and marked "...". */
enum { LOG_LINE_MAX_BYTES = 8192 };

extern enum log_level log_threshold; /* messages above it are dropped; default LOG_LEVEL_INFO */

/* Parses "error", "warn", "info" or "debug". Returns false on anything else. */
bool log_level_parse(const char *name, enum log_level *level);

/* Sets what stands in brackets behind the level, e.g. "worker 1"; copied. */
void log_set_role(const char *role);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_at(level, ...)                                                                         \
    do {                                                                                           \
        if ((level) <= log_threshold)                                                              \
            log_write((level), __VA_ARGS__);                                                       \
    } while (0)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* A budget of messages for one place in the code: `burst` at once, refilled `burst` a second. */
struct log_limit {
    int64_t window_start_ms;
    uint32_t written;    /* in this window */
    uint32_t suppressed; /* since the last one that was written */
};

/* True if a message may be written now; *suppressed says how many were swallowed before it. */
bool log_limit_pass(struct log_limit *limit, uint32_t burst, uint32_t *suppressed);

/* Warns that there was no memory for something, and what came of it: "no memory for a request: its
 * connection is closed" (static text). Whoever lacks memory lacks it for thousands: at most five a
 * second are written, of all such messages. */
void log_no_memory(const char *what);

#endif
