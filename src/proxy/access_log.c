#include "proxy/access_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/exchange.h"
#include "http/tunnel_note.h"
#include "net/tunnel_state.h"
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

/*
 * A line in its parts, since one about a tunnel is begun when the request is still there and ended
 * when the tunnel has:
 *
 *   front │ time │ what was asked and answered │ amounts │ who asked │ the tunnel's end
 */
static void put_front(struct log_line *line, const struct record *record)
{
    char remote[ADDRESS_TEXT_MAX + 1];
    if (record->log->format == ACCESS_LOG_JSON)
        log_line_put(line, "{\"time\":\"");
    else
        log_line_put(line, "%s - - [", remote_of(record, remote));
}

static void put_time(struct log_line *line, enum access_log_format format)
{
    if (format == ACCESS_LOG_JSON)
        log_line_utc_time(line);
    else
        log_line_local_time(line);
}

static void put_combined(struct log_line *line, const struct record *record)
{
    log_line_put(line, "] \"");
    if (record->path.len) {
        log_line_text(line, record->method, false);
        log_line_put(line, " ");
        put_target(line, record, false);
        log_line_put(line, " %s", protocol_of(record));
    } else { /* as nobody could read it */
        log_line_put(line, "-");
    }
    log_line_put(line, "\" %d", status_of(record));
}

static void put_json(struct log_line *line, const struct record *record)
{
    char remote[ADDRESS_TEXT_MAX + 1];
    log_line_put(line, "\",\"id\":%llu", (unsigned long long)record->request->id);
    log_line_member(line, "remote", slice_from_cstr(remote_of(record, remote)));
    log_line_member(line, "method", record->method);
    log_line_put(line, ",\"target\":\"");
    put_target(line, record, true);
    log_line_put(line, "\"");
    log_line_member(line, "host", record->host);
    log_line_put(line, ",\"protocol\":\"%s\",\"status\":%d", protocol_of(record),
                 status_of(record));
}

static void put_what(struct log_line *line, const struct record *record)
{
    if (record->log->format == ACCESS_LOG_JSON)
        put_json(line, record);
    else
        put_combined(line, record);
}

static void put_amounts(struct log_line *line, enum access_log_format format, uint64_t bytes,
                        int64_t started_us)
{
    if (format == ACCESS_LOG_JSON)
        log_line_put(line, ",\"bytes\":%llu,\"duration_ms\":%.3f", (unsigned long long)bytes,
                     (double)(clock_now_us() - started_us) / 1e3);
    else
        log_line_put(line, " %llu", (unsigned long long)bytes);
}

static void put_who(struct log_line *line, const struct record *record)
{
    if (record->log->format != ACCESS_LOG_JSON) {
        log_line_put(line, " \"");
        put_or_dash(line, record->referer);
        log_line_put(line, "\" \"");
        put_or_dash(line, record->user_agent);
        log_line_put(line, "\"");
        return;
    }
    log_line_member(line, "referer", record->referer);
    log_line_member(line, "user_agent", record->user_agent);
    struct slice logged = record->request->exchange->logged;
    log_line_put(line, "%.*s", (int)logged.len, logged.ptr ? logged.ptr : "");
    if (record->response && record->response->error != RESPONSE_OK)
        log_line_member(line, "error", record->response->error_text);
    if (record->why)
        log_line_member(line, "error", slice_from_cstr(record->why));
}

static void put_tunnel(struct log_line *line, enum access_log_format format, int64_t started_us,
                       const struct tunnel_result *tunnel)
{
    const char *reason = tunnel_reason_name(tunnel->reason);
    if (format != ACCESS_LOG_JSON) {
        log_line_put(line, " %llu %.3f %s", (unsigned long long)tunnel->client_bytes,
                     (double)(clock_now_us() - started_us) / 1e6, reason);
        return;
    }
    log_line_put(line, ",\"client_bytes\":%llu", (unsigned long long)tunnel->client_bytes);
    log_line_member(line, "reason", slice_from_cstr(reason));
    if (tunnel->reason == TUNNEL_CLIENT_FAILED || tunnel->reason == TUNNEL_PEER_FAILED)
        log_line_member(line, "error", slice_from_cstr(strerrordesc_np(-tunnel->error)));
}

/* `tunnel` may be NULL. */
static void end_line(struct log_line *line, const struct access_log *log, int64_t started_us,
                     const struct tunnel_result *tunnel)
{
    if (tunnel)
        put_tunnel(line, log->format, started_us, tunnel);
    if (log->format == ACCESS_LOG_JSON)
        log_line_put(line, "}");
    log_line_write(line, log->sink);
}

/* --- Lines that wait for the end of a tunnel -------------------------------------------------- */

/* Outlives its request and its site. */
struct held_line {
    struct tunnel_note note; /* first */
    struct access_log log;   /* with a hold of its own on the sink */
    int64_t started_us;
    struct tunnel_log_line parts;
    char text[];
};

static void put_part(struct log_line *line, const struct held_line *held, uint32_t from,
                     uint32_t to)
{
    log_line_put(line, "%.*s", (int)(to - from), held->text + from);
}

static void tunnel_ended(struct tunnel_note *note, const struct tunnel_result *result)
{
    struct held_line *held = (struct held_line *)note;
    const struct tunnel_log_line *parts = &held->parts;
    struct log_line line;
    if (result->reason != TUNNEL_LEFT) {
        line.len = 0;
        put_part(&line, held, 0, parts->time_at);
        put_time(&line, held->log.format);
        put_part(&line, held, parts->time_at, parts->amounts_at);
        put_amounts(&line, held->log.format, result->peer_bytes, held->started_us);
        put_part(&line, held, parts->amounts_at, (uint32_t)parts->text.len);
        end_line(&line, &held->log, held->started_us, result);
    }
    log_sink_release(held->log.sink);
    free(held);
}

static bool describe(const struct tunnel_note *note, struct tunnel_state *state)
{
    const struct held_line *held = (const struct held_line *)note;
    if (state->log_count == TUNNEL_STATE_LOGS_MAX)
        return false;
    state->started_us = held->started_us;
    state->logs[state->log_count++] = (struct tunnel_log){.format = (uint8_t)held->log.format,
                                                          .target = log_sink_target(held->log.sink),
                                                          .line = held->parts};
    return true;
}

static struct tunnel_note *hold_line(enum access_log_format format, struct io *io,
                                     const char *target, int64_t started_us,
                                     const struct tunnel_log_line *parts)
{
    struct held_line *held = malloc(sizeof(*held) + parts->text.len);
    if (!held)
        return NULL;
    *held = (struct held_line){
        .note = {.ended = tunnel_ended, .describe = describe},
        .log.format = format,
        .started_us = started_us,
        .parts = *parts,
    };
    memcpy(held->text, parts->text.ptr, parts->text.len);
    held->parts.text.ptr = held->text;
    if (log_sink_open(&held->log.sink, io, target) == 0)
        return &held->note;
    free(held);
    return NULL;
}

/* As the exchange ends. False if memory is exhausted. */
static bool hold_record(const struct record *record)
{
    struct exchange *exchange = record->request->exchange;
    struct log_line line;
    struct tunnel_log_line parts;
    line.len = 0;
    put_front(&line, record);
    parts.time_at = (uint16_t)line.len;
    put_what(&line, record);
    parts.amounts_at = (uint16_t)line.len;
    put_who(&line, record);
    parts.text = slice_of(line.text, line.len);
    struct slice target = log_sink_target(record->log->sink);
    struct tunnel_note *note =
        hold_line(record->log->format, exchange->io, target.ptr, exchange->started_us, &parts);
    if (!note)
        return false;
    note->next = exchange->notes;
    exchange->notes = note;
    return true;
}

bool access_log_adopt(struct io *io, const struct tunnel_state *state, struct tunnel_note **notes)
{
    *notes = NULL;
    for (unsigned i = state->log_count; i--;) {
        const struct tunnel_log *log = &state->logs[i];
        char target[TUNNEL_TARGET_MAX_BYTES + 1];
        bool known = log->format == ACCESS_LOG_COMBINED || log->format == ACCESS_LOG_JSON;
        struct tunnel_note *note = NULL;
        if (known && log->target.len < sizeof(target)) {
            memcpy(target, log->target.ptr, log->target.len);
            target[log->target.len] = '\0';
            note = hold_line((enum access_log_format)log->format, io, target, state->started_us,
                             &log->line);
        }
        if (!note) {
            tunnel_notes_end(*notes, &(struct tunnel_result){.reason = TUNNEL_LEFT});
            *notes = NULL;
            return false;
        }
        note->next = *notes;
        *notes = note;
    }
    return true;
}

/* --- The layer -------------------------------------------------------------------------------- */

static void take(struct record *record, const struct access_log *log, const struct request *request)
{
    *record = (struct record){
        .log = log,
        .request = request,
        .method = request->method_name,
        .path = request->method == METHOD_CONNECT && !request->path.len ? request->authority
                                                                        : request->path,
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
    const struct exchange *exchange = record->request->exchange;
    const struct tunnel_result *tunnel = exchange->tunnel;
    struct log_line line;
    if (exchange->tunnel_peer && hold_record(record))
        return;
    line.len = 0;
    put_front(&line, record);
    put_time(&line, record->log->format);
    put_what(&line, record);
    put_amounts(&line, record->log->format, tunnel ? tunnel->peer_bytes : exchange->bytes_sent,
                exchange->started_us);
    put_who(&line, record);
    end_line(&line, record->log, exchange->started_us, tunnel);
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
