#include "net/tunnel_state.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define MAGIC 0x4e544c4d /* "MLTN" */

enum {
    FLAG_CLIENT_SHUT = 1,
    FLAG_PEER_SHUT = 2,
    FLAGS = FLAG_CLIENT_SHUT | FLAG_PEER_SHUT,
    LISTENER_MAX_BYTES = 255,
    PEER_MAX_BYTES = ADDRESS_TEXT_MAX,
    LINE_MAX_BYTES = 8192,
};

/* All that is of fixed size. */
struct head {
    uint32_t magic;
    uint16_t version;
    uint8_t kind;
    uint8_t flags;
    uint64_t id;
    int64_t started_us;
    int64_t moved_ms;
    int64_t deadline_ms;
    uint64_t client_bytes;
    uint64_t peer_bytes;
    uint32_t idle_timeout_ms;
    uint32_t half_closed_timeout_ms;
    uint32_t client_pending;
    uint32_t peer_pending;
    uint16_t log_count;
    uint8_t zero[6];
};

/* --- Writing ---------------------------------------------------------------------------------- */

struct writer {
    char *bytes;
    size_t len; /* TUNNEL_STATE_MAX_BYTES + 1: it does not fit */
};

static void put(struct writer *writer, const void *bytes, size_t len)
{
    if (writer->len + len > TUNNEL_STATE_MAX_BYTES) {
        writer->len = TUNNEL_STATE_MAX_BYTES + 1;
        return;
    }
    if (len)
        memcpy(writer->bytes + writer->len, bytes, len);
    writer->len += len;
}

static void put_text(struct writer *writer, const void *bytes, size_t len)
{
    uint16_t short_len = (uint16_t)len;
    if (len > UINT16_MAX)
        writer->len = TUNNEL_STATE_MAX_BYTES + 1;
    put(writer, &short_len, sizeof(short_len));
    put(writer, bytes, len);
}

static void put_address(struct writer *writer, const struct address *address)
{
    put_text(writer, &address->any, address->len);
}

static void put_line(struct writer *writer, const struct tunnel_log_line *line)
{
    put_text(writer, line->text.ptr, line->text.len);
    put(writer, &line->time_at, sizeof(line->time_at));
    put(writer, &line->amounts_at, sizeof(line->amounts_at));
}

int tunnel_state_write(const struct tunnel_state *state, char bytes[TUNNEL_STATE_MAX_BYTES])
{
    struct writer writer = {.bytes = bytes};
    struct head head = {
        .magic = MAGIC,
        .version = TUNNEL_STATE_VERSION,
        .kind = (uint8_t)state->kind,
        .flags = (uint8_t)((state->client_shut ? FLAG_CLIENT_SHUT : 0) |
                           (state->peer_shut ? FLAG_PEER_SHUT : 0)),
        .id = state->id,
        .started_us = state->started_us,
        .moved_ms = state->moved_ms,
        .deadline_ms = state->deadline_ms,
        .client_bytes = state->client_bytes,
        .peer_bytes = state->peer_bytes,
        .idle_timeout_ms = state->idle_timeout_ms,
        .half_closed_timeout_ms = state->half_closed_timeout_ms,
        .client_pending = state->client_pending,
        .peer_pending = state->peer_pending,
        .log_count = (uint16_t)state->log_count,
    };
    put(&writer, &head, sizeof(head));
    put_address(&writer, &state->client_remote);
    put_address(&writer, &state->client_local);
    put_address(&writer, &state->peer_remote);
    put_text(&writer, state->listener.ptr, state->listener.len);
    put_text(&writer, state->peer.ptr, state->peer.len);
    for (unsigned i = 0; i < state->log_count; i++) {
        put(&writer, &state->logs[i].format, 1);
        put_text(&writer, state->logs[i].target.ptr, state->logs[i].target.len);
        put_line(&writer, &state->logs[i].line);
    }
    return writer.len > TUNNEL_STATE_MAX_BYTES ? -EMSGSIZE : (int)writer.len;
}

/* --- Reading ---------------------------------------------------------------------------------- */

struct reader {
    struct slice left;
    const char *why; /* the first thing that is wrong; NULL: nothing is */
};

static void refuse(struct reader *reader, const char *why)
{
    if (!reader->why)
        reader->why = why;
}

/* The next bytes, or NULL when they are not there. */
static const char *take(struct reader *reader, size_t len)
{
    const char *at = reader->left.ptr;
    if (reader->why || len > reader->left.len) {
        refuse(reader, "it is too short");
        return NULL;
    }
    reader->left = slice_of(at + len, reader->left.len - len);
    return at;
}

static uint16_t take_short(struct reader *reader)
{
    uint16_t number = 0;
    const char *at = take(reader, sizeof(number));
    if (at)
        memcpy(&number, at, sizeof(number));
    return number;
}

static struct slice take_text(struct reader *reader, size_t max)
{
    uint16_t len = take_short(reader);
    if (len > max)
        refuse(reader, "a text is too long");
    const char *at = take(reader, len);
    if (at && memchr(at, '\0', len))
        refuse(reader, "a text holds a NUL");
    return at ? slice_of(at, len) : SLICE("");
}

static bool right_size(const struct address *address)
{
    switch (address->any.sa_family) {
    case AF_INET:
        return address->len == sizeof(address->v4);
    case AF_INET6:
        return address->len == sizeof(address->v6);
    case AF_UNIX:
        return address->len >= offsetof(struct sockaddr_un, sun_path);
    default:
        return false;
    }
}

static void take_address(struct reader *reader, struct address *address)
{
    uint16_t len = take_short(reader);
    *address = (struct address){.len = 0};
    if (len > sizeof(struct sockaddr_un)) {
        refuse(reader, "an address is too long");
        return;
    }
    const char *at = take(reader, len);
    if (!at || !len)
        return;
    memcpy(&address->any, at, len);
    address->len = len;
    if (len < sizeof(address->any.sa_family) || !right_size(address))
        refuse(reader, "an address makes no sense");
}

static const char *judge(const struct head *head)
{
    if (head->magic != MAGIC)
        return "it is none";
    if (head->version != TUNNEL_STATE_VERSION)
        return "it is of another version";
    if (head->kind != TUNNEL_OF_LAYER4 && head->kind != TUNNEL_OF_HTTP)
        return "it is of an unknown kind";
    if ((head->flags & ~FLAGS) || head->flags == FLAGS)
        return "its flags make no sense";
    if (head->started_us < 0 || head->moved_ms < 0 || head->deadline_ms < 0)
        return "its times make no sense";
    if ((uint64_t)head->client_pending + head->peer_pending > TUNNEL_PENDING_MAX_BYTES)
        return "too many bytes are on their way";
    if (head->log_count > TUNNEL_STATE_LOGS_MAX)
        return "it has too many access logs";
    for (unsigned i = 0; i < sizeof(head->zero); i++)
        if (head->zero[i])
            return "it says more than is understood";
    return NULL;
}

static void take_head(struct reader *reader, struct tunnel_state *state)
{
    struct head head;
    const char *at = take(reader, sizeof(head));
    if (!at)
        return;
    memcpy(&head, at, sizeof(head));
    reader->why = judge(&head);
    *state = (struct tunnel_state){
        .kind = (enum tunnel_kind)head.kind,
        .log_count = reader->why ? 0 : head.log_count,
        .id = head.id,
        .started_us = head.started_us,
        .moved_ms = head.moved_ms,
        .deadline_ms = head.deadline_ms,
        .idle_timeout_ms = head.idle_timeout_ms,
        .half_closed_timeout_ms = head.half_closed_timeout_ms,
        .client_bytes = head.client_bytes,
        .peer_bytes = head.peer_bytes,
        .client_pending = head.client_pending,
        .peer_pending = head.peer_pending,
        .client_shut = head.flags & FLAG_CLIENT_SHUT,
        .peer_shut = head.flags & FLAG_PEER_SHUT,
    };
}

static void take_line(struct reader *reader, struct tunnel_log_line *line)
{
    line->text = take_text(reader, LINE_MAX_BYTES);
    line->time_at = take_short(reader);
    line->amounts_at = take_short(reader);
    if (line->time_at > line->amounts_at || line->amounts_at > line->text.len)
        refuse(reader, "a line of an access log has no such parts");
}

static void take_log(struct reader *reader, struct tunnel_log *log)
{
    const char *format = take(reader, 1);
    log->format = format ? (uint8_t)*format : 0;
    log->target = take_text(reader, TUNNEL_TARGET_MAX_BYTES);
    if (!log->target.len)
        refuse(reader, "an access log has no name");
    take_line(reader, &log->line);
}

int tunnel_state_parse(struct slice bytes, struct tunnel_state *state, const char **why)
{
    struct reader reader = {.left = bytes};
    *state = (struct tunnel_state){.log_count = 0};
    take_head(&reader, state);
    take_address(&reader, &state->client_remote);
    take_address(&reader, &state->client_local);
    take_address(&reader, &state->peer_remote);
    state->listener = take_text(&reader, LISTENER_MAX_BYTES);
    state->peer = take_text(&reader, PEER_MAX_BYTES);
    for (unsigned i = 0; i < state->log_count && !reader.why; i++)
        take_log(&reader, &state->logs[i]);
    if (!state->listener.len)
        refuse(&reader, "it names no listener");
    if (reader.left.len)
        refuse(&reader, "it says more than is understood");
    *why = reader.why;
    return reader.why ? -EPROTO : 0;
}
