#include "proxy/access_log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "http/exchange.h"
#include "proxy/log_sink.h"

enum { LINE_MAX_BYTES = 8192, FIELD_MAX_BYTES = 1024, STATUS_CLIENT_GONE = 499 };

struct access_log {
    struct log_sink *sink; /* NULL in a site that is only checked */
    enum access_log_format format;
};

/* What is noted when a request arrives, before layers change it. */
struct record {
    const struct access_log *log;
    const struct request *request;
    const struct response *response; /* NULL: the client was gone before there was one */
    struct slice method;
    struct slice path;
    struct slice query;
    struct slice host;
    struct slice referer; /* NULL ptr: there is none */
    struct slice user_agent;
};

/* --- Lines ------------------------------------------------------------------------------------ */

/* A line that is being written; what does not fit is cut. */
struct line {
    size_t len;
    char text[LINE_MAX_BYTES];
};

static void put(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct line *line, const char *format, ...)
{
    size_t room = sizeof(line->text) - line->len;
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line->text + line->len, room, format, args);
    va_end(args);
    if (len > 0)
        line->len += (size_t)len < room ? (size_t)len : room - 1;
}

/* Text of the client's, in which nothing may end the quotes or the line: \xHH, in JSON \u00HH. Each
 * is cut so that all of them fit in a line, which stays whole. */
static void put_text(struct line *line, struct slice text, bool json)
{
    size_t end = line->len + FIELD_MAX_BYTES;
    for (size_t i = 0; i < text.len && line->len < end; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool special = c == '"' || c == '\\' || c < ' ' || c >= 0x7f;
        if (special)
            put(line, json ? "\\u%04x" : "\\x%02X", c);
        else if (line->len < sizeof(line->text) - 1)
            line->text[line->len++] = (char)c;
    }
}

static void put_target(struct line *line, const struct record *record, bool json)
{
    put_text(line, record->path, json);
    if (record->query.ptr) {
        put(line, "?");
        put_text(line, record->query, json);
    }
}

static void put_or_dash(struct line *line, struct slice value)
{
    put_text(line, value.ptr ? value : SLICE("-"), false);
}

static int status_of(const struct record *record)
{
    uint16_t sent = record->request->exchange->sent_status;
    if (sent)
        return sent;
    return record->response ? record->response->status : STATUS_CLIENT_GONE;
}

static const char *remote_of(const struct record *record, char *text)
{
    const struct address *remote = record->request->remote;
    size_t len = remote ? address_format_host(remote, text) : 0;
    text[len] = '\0';
    return len ? text : "-";
}

static const char *protocol_of(const struct record *record)
{
    switch (record->request->version) {
    case HTTP_1_0:
        return "HTTP/1.0";
    case HTTP_2:
        return "HTTP/2.0";
    case HTTP_3:
        return "HTTP/3.0";
    default:
        return "HTTP/1.1";
    }
}

static void put_combined(struct line *line, const struct record *record)
{
    char remote[ADDRESS_TEXT_MAX + 1];
    char date[64];
    time_t now = time(NULL);
    struct tm local;
    strftime(date, sizeof(date), "%d/%b/%Y:%H:%M:%S %z", localtime_r(&now, &local));
    put(line, "%s - - [%s] \"", remote_of(record, remote), date);
    put_text(line, record->method, false);
    put(line, " ");
    put_target(line, record, false);
    put(line, " %s\" %d %lld \"", protocol_of(record), status_of(record),
        record->response ? (long long)record->response->body.bytes_read : 0);
    put_or_dash(line, record->referer);
    put(line, "\" \"");
    put_or_dash(line, record->user_agent);
    put(line, "\"");
}

static void put_member(struct line *line, const char *name, struct slice value)
{
    put(line, ",\"%s\":\"", name);
    put_text(line, value, true);
    put(line, "\"");
}

static void put_json(struct line *line, const struct record *record)
{
    const struct exchange *exchange = record->request->exchange;
    char remote[ADDRESS_TEXT_MAX + 1];
    char date[64];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &utc));
    put(line, "{\"time\":\"%s.%03ldZ\",\"id\":%llu", date, now.tv_nsec / 1000000,
        (unsigned long long)record->request->id);
    put_member(line, "remote", slice_from_cstr(remote_of(record, remote)));
    put_member(line, "method", record->method);
    put(line, ",\"target\":\"");
    put_target(line, record, true);
    put(line, "\"");
    put_member(line, "host", record->host);
    put(line, ",\"protocol\":\"%s\",\"status\":%d,\"bytes\":%llu,\"duration_ms\":%.3f",
        protocol_of(record), status_of(record), (unsigned long long)exchange->bytes_sent,
        (double)(clock_now_us() - exchange->started_us) / 1e3);
    put_member(line, "referer", record->referer);
    put_member(line, "user_agent", record->user_agent);
    if (record->response && record->response->error != RESPONSE_OK)
        put_member(line, "error", record->response->error_text);
    put(line, "}");
}

/* --- The layer -------------------------------------------------------------------------------- */

/* Runs when the exchange ends, on the stack of its coroutine. */
static void write_record(void *arg)
{
    const struct record *record = arg;
    struct line line;
    line.len = 0;
    if (record->log->format == ACCESS_LOG_JSON)
        put_json(&line, record);
    else
        put_combined(&line, record);
    if (line.len > sizeof(line.text) - 2)
        line.len = sizeof(line.text) - 2;
    line.text[line.len++] = '\n';
    log_sink_write(record->log->sink, slice_of(line.text, line.len));
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    struct access_log *log = self;
    struct record *record = log->sink ? arena_alloc(request->arena, sizeof(*record)) : NULL;
    if (!record || arena_defer(request->arena, write_record, record) != 0)
        return ml_next_call(next, request);
    *record = (struct record){
        .log = log,
        .request = request,
        .method = request->method_name,
        .path = request->path,
        .query = request->query,
        .host = request->authority,
        .referer = headers_get(&request->headers, SLICE("referer")),
        .user_agent = headers_get(&request->headers, SLICE("user-agent")),
    };
    ml_response *response = ml_next_call(next, request);
    record->response = response;
    return response;
}

const ml_layer access_log_layer = {.abi = ML_ABI, .name = "access_log", .handle = handle};

static void release_sink(void *arg)
{
    log_sink_release(arg);
}

struct access_log *access_log_create(struct arena *arena, struct io *io,
                                     enum access_log_format format, const char *target,
                                     const char **error)
{
    struct access_log *log = arena_alloc(arena, sizeof(*log));
    if (!log) {
        *error = "out of memory";
        return NULL;
    }
    *log = (struct access_log){.format = format};
    int result = io ? log_sink_open(&log->sink, io, target) : log_sink_check(target);
    if (result == 0 && log->sink && arena_defer(arena, release_sink, log->sink) != 0) {
        log_sink_release(log->sink);
        result = -ENOMEM;
    }
    if (result == 0)
        return log;
    *error = arena_printf(arena, "access log %s: %s", target, strerror(-result)).ptr;
    return NULL;
}
