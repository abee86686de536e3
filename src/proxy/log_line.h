/* A line of an access log while it is written: what does not fit is cut, and nothing that a client
 * has said ends a field or the line. */
#ifndef PROXY_LOG_LINE_H
#define PROXY_LOG_LINE_H

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

struct log_sink;

enum { LOG_LINE_MAX_BYTES = 8192, LOG_LINE_FIELD_MAX_BYTES = 1024 };

/* Of what layers add to a line: as much as is left when every field is as long as it may be. */
enum { LOG_LINE_LOGGED_MAX_BYTES = 512 };

struct log_line {
    size_t len;
    char text[LOG_LINE_MAX_BYTES];
};

void log_line_put(struct log_line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Text of the client's, escaped as \xHH, in JSON \u00HH. Each is cut so that all of them fit in a
 * line, which stays whole. */
void log_line_text(struct log_line *line, struct slice text, bool json);

/* ,"name":"value" */
void log_line_member(struct log_line *line, const char *name, struct slice value);

/* "23/Nov/2026:07:00:00 +0000" and "2026-11-23T07:00:00.000Z" of now. */
void log_line_local_time(struct log_line *line);
void log_line_utc_time(struct log_line *line);

/* Ends the line and hands it over. */
void log_line_write(struct log_line *line, struct log_sink *sink);

#endif
