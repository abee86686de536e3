#include "proxy/log_line.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "proxy/log_sink.h"

void log_line_put(struct log_line *line, const char *format, ...)
{
    size_t room = sizeof(line->text) - line->len;
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line->text + line->len, room, format, args);
    va_end(args);
    if (len > 0)
        line->len += (size_t)len < room ? (size_t)len : room - 1;
}

void log_line_text(struct log_line *line, struct slice text, bool json)
{
    size_t end = line->len + LOG_LINE_FIELD_MAX_BYTES;
    for (size_t i = 0; i < text.len && line->len < end; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool special = c == '"' || c == '\\' || c < ' ' || c >= 0x7f;
        if (special)
            log_line_put(line, json ? "\\u%04x" : "\\x%02X", c);
        else if (line->len < sizeof(line->text) - 1)
            line->text[line->len++] = (char)c;
    }
}

void log_line_member(struct log_line *line, const char *name, struct slice value)
{
    log_line_put(line, ",\"%s\":\"", name);
    log_line_text(line, value, true);
    log_line_put(line, "\"");
}

void log_line_local_time(struct log_line *line)
{
    char date[64];
    time_t now = time(NULL);
    struct tm local;
    strftime(date, sizeof(date), "%d/%b/%Y:%H:%M:%S %z", localtime_r(&now, &local));
    log_line_put(line, "%s", date);
}

void log_line_utc_time(struct log_line *line)
{
    char date[64];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &utc));
    log_line_put(line, "%s.%03ldZ", date, now.tv_nsec / 1000000);
}

void log_line_write(struct log_line *line, struct log_sink *sink)
{
    if (line->len > sizeof(line->text) - 2)
        line->len = sizeof(line->text) - 2;
    line->text[line->len++] = '\n';
    log_sink_write(sink, slice_of(line->text, line->len));
}
