#include "l4/access_log.h"

#include "l4/conn.h"
#include "net/tunnel_state.h"
#include "proxy/access_log.h"
#include "proxy/log_line.h"
#include "proxy/log_sink.h"

/* A line that is owed for a connection; in its exchange's arena. */
struct l4_log_record {
    const struct access_log *log;
    const struct l4_conn *conn;
    struct l4_log_record *next;
};

static struct slice text_of(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
    return address->len ? slice_of(text, address_format(address, text)) : SLICE("-");
}

static void put_line(struct log_line *line, const struct l4_conn *conn)
{
    char text[ADDRESS_TEXT_MAX];
    log_line_text(line, text_of(&conn->remote, text), false);
    log_line_put(line, " [");
    log_line_local_time(line);
    log_line_put(line, "] ");
    log_line_text(line, text_of(&conn->local, text), false);
    log_line_put(line, " ");
    log_line_text(line, conn->peer.ptr ? conn->peer : SLICE("-"), false);
    log_line_put(line, " %llu %llu %.3f %s", (unsigned long long)conn->client_bytes,
                 (unsigned long long)conn->peer_bytes, (double)conn->duration_us / 1e6,
                 l4_reason_name(conn->reason));
    if (conn->of_datagrams)
        log_line_put(line, " %llu %llu", (unsigned long long)conn->client_packets,
                     (unsigned long long)conn->peer_packets);
    if (conn->why.ptr) {
        log_line_put(line, " \"");
        log_line_text(line, conn->why, false);
        log_line_put(line, "\"");
    }
}

static void put_json(struct log_line *line, const struct l4_conn *conn)
{
    char text[ADDRESS_TEXT_MAX];
    log_line_put(line, "{\"time\":\"");
    log_line_utc_time(line);
    log_line_put(line, "\",\"id\":%llu", (unsigned long long)conn->exchange->request.id);
    log_line_member(line, "remote", text_of(&conn->remote, text));
    log_line_member(line, "local", text_of(&conn->local, text));
    if (conn->peer.ptr)
        log_line_member(line, "peer", conn->peer);
    else
        log_line_put(line, ",\"peer\":null");
    log_line_put(line, ",\"client_bytes\":%llu,\"peer_bytes\":%llu,\"duration_ms\":%.3f",
                 (unsigned long long)conn->client_bytes, (unsigned long long)conn->peer_bytes,
                 (double)conn->duration_us / 1e3);
    if (conn->of_datagrams)
        log_line_put(line, ",\"client_packets\":%llu,\"peer_packets\":%llu",
                     (unsigned long long)conn->client_packets,
                     (unsigned long long)conn->peer_packets);
    log_line_member(line, "reason", slice_from_cstr(l4_reason_name(conn->reason)));
    if (conn->why.ptr)
        log_line_member(line, "error", conn->why);
    log_line_put(line, "}");
}

/* Runs when the exchange ends. */
static void write_record(void *arg)
{
    const struct l4_log_record *record = arg;
    struct log_line line;
    if (record->conn->reason == L4_MOVED)
        return;
    line.len = 0;
    if (record->log->format == ACCESS_LOG_JSON)
        put_json(&line, record->conn);
    else
        put_line(&line, record->conn);
    log_line_write(&line, record->log->sink);
}

static bool owe(struct l4_conn *conn, const struct access_log *log)
{
    struct arena *arena = &conn->exchange->arena;
    struct l4_log_record *record = arena_alloc(arena, sizeof(*record));
    if (!record || arena_defer(arena, write_record, record) != 0)
        return false;
    *record = (struct l4_log_record){.log = log, .conn = conn, .next = conn->logs};
    conn->logs = record;
    return true;
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    const struct access_log *log = self;
    struct l4_conn *conn = l4_conn_of(request);
    if (log->sink && conn)
        owe(conn, log);
    return ml_next_call(next, request);
}

const ml_layer l4_access_log_layer = {.abi = ML_ABI, .name = "access_log", .handle = handle};

/* --- To another process, and from there --------------------------------------------------------
 */

bool l4_logs_describe(const struct l4_conn *conn, struct tunnel_state *state)
{
    state->log_count = 0;
    for (const struct l4_log_record *record = conn->logs; record; record = record->next) {
        if (state->log_count == TUNNEL_STATE_LOGS_MAX)
            return false;
        state->logs[state->log_count++] = (struct tunnel_log){
            .format = (uint8_t)record->log->format, .target = log_sink_target(record->log->sink)};
    }
    return true;
}

static void release_sink(void *sink)
{
    log_sink_release(sink);
}

/* The site may have this log no more, or another one instead: the line goes where it was to go. */
static bool adopt_log(struct l4_conn *conn, const struct tunnel_log *from)
{
    struct arena *arena = &conn->exchange->arena;
    struct access_log *log = arena_alloc(arena, sizeof(*log));
    struct slice target = arena_copy(arena, from->target);
    if (!log || !target.ptr || (from->format != ACCESS_LOG_JSON && from->format != ACCESS_LOG_TEXT))
        return false;
    *log = (struct access_log){.format = (enum access_log_format)from->format};
    if (log_sink_open(&log->sink, conn->exchange->io, target.ptr) != 0)
        return false;
    if (arena_defer(arena, release_sink, log->sink) != 0) {
        log_sink_release(log->sink);
        return false;
    }
    return owe(conn, log);
}

bool l4_logs_adopt(struct l4_conn *conn, const struct tunnel_state *state)
{
    for (unsigned i = state->log_count; i--;) /* as they were noted, the last first */
        if (!adopt_log(conn, &state->logs[i]))
            return false;
    return true;
}
