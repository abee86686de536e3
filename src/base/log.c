#include "base/log.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/output.h"
#include "base/utc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { NO_MEMORY_LOGGED_PER_S = 5 };

enum log_level log_threshold = LOG_LEVEL_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static char role_text[32] = "main";

bool log_level_parse(const char *name, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

void log_set_role(const char *role)
{
    snprintf(role_text, sizeof(role_text), "%s", role);
}

static size_t write_prefix(char *line, size_t size, enum log_level level)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    utc_from_time(now.tv_sec, &utc); /* last words are written by a handler */
    return (size_t)snprintf(line, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s [%s] ",
                            utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour,
                            utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000, level_names[level],
                            role_text);
}

/* --- What a full disk or a reader that is slow or gone does not take is dropped --- */

static uint32_t dropped; /* messages, since they were told of last */
static bool cut_short;   /* the last write ended within a line */

static bool put(const char *bytes, size_t len)
{
    ssize_t count = output_write(&output_error, bytes, len);
    if (count > 0)
        cut_short = bytes[count - 1] != '\n';
    return count > 0;
}

/* Ends a line that was cut, then says what is missing. */
static bool mend(void)
{
    char line[256];
    if (cut_short && !put("\n", 1))
        return false;
    if (!dropped)
        return true;
    size_t len = write_prefix(line, sizeof(line), LOG_LEVEL_WARN);
    len +=
        (size_t)snprintf(line + len, sizeof(line) - len,
                         "%u messages were dropped here: standard error took no more\n", dropped);
    if (!put(line, len))
        return false;
    dropped = 0;
    return true;
}

static void put_line(const char *line, size_t len)
{
    if (mend() && put(line, len))
        return;
    dropped++;
    counters_add(COUNTER_LOG_MESSAGES_DROPPED, 1);
}

void log_write(enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_MAX_BYTES];
    size_t len = write_prefix(line, sizeof(line), level);
    size_t room = sizeof(line) - len - 1; /* one byte is kept for the newline */

    va_list args;
    va_start(args, format);
    int body = vsnprintf(line + len, room, format, args);
    va_end(args);
    if (body < 0)
        return;
    if ((size_t)body >= room) {
        len += room - 1;
        memcpy(line + len - 3, "...", 3);
    } else {
        len += (size_t)body;
    }
    line[len++] = '\n';
    put_line(line, len);
}

bool log_limit_pass(struct log_limit *limit, uint32_t burst, uint32_t *suppressed)
{
    int64_t now = clock_now_ms();
    if (limit->written == 0 || now - limit->window_start_ms >= 1000) {
        limit->window_start_ms = now;
        limit->written = 0;
    }
    if (limit->written >= burst) {
        limit->suppressed++;
        return false;
    }
    limit->written++;
    *suppressed = limit->suppressed;
    limit->suppressed = 0;
    return true;
}

void log_no_memory(const char *what)
{
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, NO_MEMORY_LOGGED_PER_S, &suppressed))
        log_warn("%s (%u more were not logged)", what, suppressed);
}
