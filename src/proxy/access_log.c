#include "proxy/access_log.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "http/exchange.h"
#include "proxy/chain.h"
#include "proxy/log_line.h"
#include "proxy/log_sink.h"

enum { STATUS_CLIENT_GONE = 499 };

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
    const char *why; /* no layer has seen it, see access_log_refused; or NULL */
};

/* --- Lines ------------------------------------------------------------------------------------ */

static void put_target(struct log_line *line, const struct record *record, bool json)
{
    log_line_text(line, record->path, json);
    if (record->query.ptr) {
        log_line_put(line, "?");
        log_line_text(line, record->query, json);
    }
}

static void put_or_dash(struct log_line *line, struct slice value)
{
    log_line_text(line, value.ptr ? value : SLICE("-"), false);
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
    if (record->request->thrift)
        return "THRIFT";
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

static void put_combined(struct log_line *line, const struct record *record)
{
    char remote[ADDRESS_TEXT_MAX + 1];
    log_line_put(line, "%s - - [", remote_of(record, remote));
    log_line_local_time(line);
    log_line_put(line, "] \"");
    if (record->path.len) {
        log_line_text(line, record->method, false);
        log_line_put(line, " ");
        put_target(line, record, false);
        log_line_put(line, " %s", protocol_of(record));
    } else { /* as nobody could read it */
        log_line_put(line, "-");
    }
    log_line_put(line, "\" %d %llu \"", status_of(record),
                 (unsigned long long)record->request->exchange->bytes_sent);
    put_or_dash(line, record->referer);
    log_line_put(line, "\" \"");
    put_or_dash(line, record->user_agent);
    log_line_put(line, "\"");
}

static void put_json(struct log_line *line, const struct record *record)
{
    const struct exchange *exchange = record->request->exchange;
    char remote[ADDRESS_TEXT_MAX + 1];
    log_line_put(line, "{\"time\":\"");
    log_line_utc_time(line);
    log_line_put(line, "\",\"id\":%llu", (unsigned long long)record->request->id);
    log_line_member(line, "remote", slice_from_cstr(remote_of(record, remote)));
    log_line_member(line, "method", record->method);
    log_line_put(line, ",\"target\":\"");
    put_target(line, record, true);
    log_line_put(line, "\"");
    log_line_member(line, "host", record->host);
    log_line_put(line, ",\"protocol\":\"%s\",\"status\":%d,\"bytes\":%llu,\"duration_ms\":%.3f",
                 protocol_of(record), status_of(record), (unsigned long long)exchange->bytes_sent,
                 (double)(clock_now_us() - exchange->started_us) / 1e3);
    log_line_member(line, "referer", record->referer);
    log_line_member(line, "user_agent", record->user_agent);
    if (record->response && record->response->error != RESPONSE_OK)
        log_line_member(line, "error", record->response->error_text);
    if (record->why)
        log_line_member(line, "error", slice_from_cstr(record->why));
    log_line_put(line, "}");
}

/* --- The layer -------------------------------------------------------------------------------- */

static void take(struct record *record, const struct access_log *log, const struct request *request)
{
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
}

/* Runs when the exchange ends, on the stack of its coroutine. */
static void write_record(void *arg)
{
    const struct record *record = arg;
    struct log_line line;
    line.len = 0;
    if (record->log->format == ACCESS_LOG_JSON)
        put_json(&line, record);
    else
        put_combined(&line, record);
    log_line_write(&line, record->log->sink);
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    struct access_log *log = self;
    struct record *record = log->sink ? arena_alloc(request->arena, sizeof(*record)) : NULL;
    if (!record || arena_defer(request->arena, write_record, record) != 0)
        return ml_next_call(next, request);
    take(record, log, request);
    ml_response *response = ml_next_call(next, request);
    record->response = response;
    return response;
}

void access_log_refused(const struct chain *chain, const struct request *request, const char *why)
{
    struct record record;
    for (size_t i = 0; i < chain->count && chain->steps[i].layer == &access_log_layer; i++) {
        const struct access_log *log = chain->steps[i].self;
        take(&record, log, request);
        record.why = why;
        if (log->sink)
            write_record(&record);
    }
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
