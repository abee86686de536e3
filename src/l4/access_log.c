#include "l4/access_log.h"

#include "l4/conn.h"
#include "proxy/access_log.h"
#include "proxy/log_line.h"

/* A line that is owed for a connection; in its exchange's arena. */
struct record {
    const struct access_log *log;
    const struct l4_conn *conn;
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
    const struct record *record = arg;
    struct log_line line;
    line.len = 0;
    if (record->log->format == ACCESS_LOG_JSON)
        put_json(&line, record->conn);
    else
        put_line(&line, record->conn);
    log_line_write(&line, record->log->sink);
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    const struct access_log *log = self;
    const struct l4_conn *conn = l4_conn_of(request);
    struct record *record = log->sink && conn ? arena_alloc(request->arena, sizeof(*record)) : NULL;
    if (record) {
        *record = (struct record){.log = log, .conn = conn};
        arena_defer(request->arena, write_record, record);
    }
    return ml_next_call(next, request);
}

const ml_layer l4_access_log_layer = {.abi = ML_ABI, .name = "access_log", .handle = handle};
