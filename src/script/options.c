#include "script/options.h"

#include "http/listener_config.h"
#include "proxy/upstream.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LISTENER(kind, name, field)                                                                \
    {                                                                                              \
        name, kind, offsetof(struct listener_config, field)                                        \
    }
#define UPSTREAM(kind, name, field)                                                                \
    {                                                                                              \
        name, kind, offsetof(struct upstream_config, field)                                        \
    }

static const struct option of_listener[] = {
    LISTENER(OPTION_DURATION, "handshake_timeout", handshake_timeout_ms),
    LISTENER(OPTION_DURATION, "head_timeout", head_timeout_ms),
    LISTENER(OPTION_DURATION, "body_timeout", body_timeout_ms),
    LISTENER(OPTION_DURATION, "send_timeout", send_timeout_ms),
    LISTENER(OPTION_DURATION, "idle_timeout", idle_timeout_ms),
    LISTENER(OPTION_DURATION, "tunnel_idle_timeout", tunnel_idle_timeout_ms),
    LISTENER(OPTION_DURATION, "half_closed_timeout", half_closed_timeout_ms),
    LISTENER(OPTION_DURATION, "keepalive", keepalive_ms),
    LISTENER(OPTION_DURATION, "ack_timeout", ack_timeout_ms),
    LISTENER(OPTION_DURATION, "total_timeout", total_timeout_ms),
    LISTENER(OPTION_DURATION, "setup_timeout", setup_timeout_ms),
    LISTENER(OPTION_BYTES, "frame_max", frame_max_bytes),
    LISTENER(OPTION_COUNT, "calls_max", calls_max),
    LISTENER(OPTION_FLAG, "ordered_replies", ordered_replies),
    LISTENER(OPTION_COUNT, "flows_max", flows_max),
    LISTENER(OPTION_COUNT, "flow_queue_max", flow_queue_max),
    LISTENER(OPTION_BYTES, "receive_buffer", receive_buffer_bytes),
    LISTENER(OPTION_BYTES, "send_buffer", send_buffer_bytes),
    LISTENER(OPTION_BYTES, "request_line_max", request_line_max_bytes),
    LISTENER(OPTION_BYTES, "head_max", head_max_bytes),
    LISTENER(OPTION_COUNT, "headers_max", header_count_max),
    LISTENER(OPTION_BYTES64, "body_max", body_max_bytes),
    LISTENER(OPTION_COUNT, "requests_max", requests_max),
    LISTENER(OPTION_COUNT, "active_max", active_max),
    LISTENER(OPTION_DURATION, "queue_time_max", queue_time_max_ms),
    LISTENER(OPTION_COUNT, "connections_max", connections_max),
    LISTENER(OPTION_COUNT, "connections_total_max", connections_total_max),
    LISTENER(OPTION_COUNT, "connections_per_source", connections_per_source),
    LISTENER(OPTION_COUNT, "source_prefix_v4", source_prefix_v4_bits),
    LISTENER(OPTION_COUNT, "source_prefix_v6", source_prefix_v6_bits),
    LISTENER(OPTION_COUNT, "accept_rate", accept_rate),
    LISTENER(OPTION_COUNT, "accept_burst", accept_burst),
    LISTENER(OPTION_PROTOCOLS, "protocols", protocols),
    LISTENER(OPTION_COUNT, "h2_streams_max", h2_streams_max),
    LISTENER(OPTION_BYTES, "h2_window", h2_window_bytes),
    LISTENER(OPTION_COUNT, "h2_resets_max", h2_limits.resets_max),
    LISTENER(OPTION_COUNT, "h2_faults_max", h2_limits.faults_max),
    LISTENER(OPTION_COUNT, "h2_control_max", h2_limits.control_max),
};

static const struct option of_upstream[] = {
    UPSTREAM(OPTION_PROTOCOL, "protocol", protocol),
    UPSTREAM(OPTION_DURATION, "connect_timeout", connect_timeout_ms),
    UPSTREAM(OPTION_DURATION, "response_timeout", response_timeout_ms),
    UPSTREAM(OPTION_DURATION, "read_timeout", read_timeout_ms),
    UPSTREAM(OPTION_DURATION, "send_timeout", send_timeout_ms),
    UPSTREAM(OPTION_DURATION, "idle_timeout", idle_timeout_ms),
    UPSTREAM(OPTION_DURATION, "keepalive", keepalive_ms),
    UPSTREAM(OPTION_DURATION, "ack_timeout", ack_timeout_ms),
    UPSTREAM(OPTION_COUNT, "idle_max", idle_max),
    UPSTREAM(OPTION_COUNT, "connections_max", connections_max),
    UPSTREAM(OPTION_COUNT, "streams_max", streams_max),
    UPSTREAM(OPTION_COUNT, "calls_max", calls_max),
    UPSTREAM(OPTION_BYTES, "frame_max", frame_max_bytes),
    UPSTREAM(OPTION_DURATION, "ping_interval", ping_interval_ms),
    UPSTREAM(OPTION_COUNT, "retries", retries),
    UPSTREAM(OPTION_COUNT, "fail_max", fail_max),
    UPSTREAM(OPTION_DURATION, "fail_timeout", fail_timeout_ms),
    UPSTREAM(OPTION_FLAG, "forwarded", forwarded),
    UPSTREAM(OPTION_FLAG, "x_forwarded", x_forwarded),
    UPSTREAM(OPTION_FLAG, "pass_host", pass_host),
    UPSTREAM(OPTION_SEND_PROXY, "send_proxy", send_proxy),
    UPSTREAM(OPTION_BYTES, "response_head_max", response_head_max_bytes),
};

static void init_listener(void *config)
{
    listener_config_init(config);
}

static void init_upstream(void *config)
{
    upstream_config_init(config);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const struct option_set listener_options = {
    "listener", of_listener, COUNT(of_listener), init_listener, sizeof(struct listener_config),
};
const struct option_set upstream_options = {
    "upstream", of_upstream, COUNT(of_upstream), init_upstream, sizeof(struct upstream_config),
};

static const char *const kind_names[] = {
    [OPTION_DURATION] = "duration",   [OPTION_COUNT] = "count",
    [OPTION_BYTES] = "bytes32",       [OPTION_BYTES64] = "bytes",
    [OPTION_FLAG] = "flag",           [OPTION_PROTOCOL] = "protocol",
    [OPTION_PROTOCOLS] = "protocols", [OPTION_SEND_PROXY] = "send_proxy",
};

static void read_one(const struct option *option, lua_State *L, void *field)
{
    switch (option->kind) {
    case OPTION_DURATION: /* the check has made milliseconds and bytes of whatever was written */
    case OPTION_COUNT:
    case OPTION_BYTES:
    case OPTION_PROTOCOL:
    case OPTION_PROTOCOLS:
    case OPTION_SEND_PROXY:
        *(uint32_t *)field = (uint32_t)lua_tonumber(L, -1);
        break;
    case OPTION_BYTES64:
        *(uint64_t *)field = (uint64_t)lua_tonumber(L, -1);
        break;
    case OPTION_FLAG:
        *(bool *)field = lua_toboolean(L, -1);
        break;
    }
}

void options_read(const struct option_set *set, lua_State *L, int index, void *config)
{
    for (size_t i = 0; i < set->count; i++) {
        lua_getfield(L, index, set->options[i].name);
        if (!lua_isnil(L, -1))
            read_one(&set->options[i], L, (char *)config + set->options[i].offset);
        lua_pop(L, 1);
    }
}

void options_push_kinds(const struct option_set *set, lua_State *L)
{
    lua_createtable(L, 0, (int)set->count);
    for (size_t i = 0; i < set->count; i++) {
        lua_pushstring(L, kind_names[set->options[i].kind]);
        lua_setfield(L, -2, set->options[i].name);
    }
}

/* A number with the largest unit that divides it. */
static void print_scaled(char *out, size_t size, uint64_t value, const uint64_t *scales,
                         const char *const *units)
{
    while (value == 0 || value % *scales != 0) {
        scales++;
        units++;
        if (*scales == 1)
            break;
    }
    snprintf(out, size, "%llu%s", (unsigned long long)(value / *scales), *units);
}

static const char *const protocol_names[] = {
    [UPSTREAM_H1] = "h1",         [UPSTREAM_H2] = "h2",   [UPSTREAM_TCP] = "tcp",
    [UPSTREAM_THRIFT] = "thrift", [UPSTREAM_UDP] = "udp", [UPSTREAM_AUTO] = "auto"};

static void print_protocols(char *out, size_t size, uint32_t bits)
{
    snprintf(out, size, "%s%s%s%s%s", bits & PROTOCOL_H1 ? "h1" : "",
             bits & PROTOCOL_H1 && bits & PROTOCOL_H2 ? "+" : "", bits & PROTOCOL_H2 ? "h2" : "",
             bits & (PROTOCOL_H1 | PROTOCOL_H2) && bits & PROTOCOL_H2C ? "+" : "",
             bits & PROTOCOL_H2C ? "h2c" : "");
}

static void print_send_proxy(char *out, size_t size, uint32_t bits)
{
    snprintf(out, size, "%s%s%s%s%s%s",
             bits & SEND_PROXY_V1   ? "v1"
             : bits & SEND_PROXY_V2 ? "v2"
                                    : "",
             bits & SEND_PROXY_ALPN ? "+alpn" : "", bits & SEND_PROXY_AUTHORITY ? "+authority" : "",
             bits & SEND_PROXY_SSL ? "+ssl" : "", bits & SEND_PROXY_UNIQUE_ID ? "+unique_id" : "",
             bits & SEND_PROXY_CRC32C ? "+crc32c" : "");
}

static void print_value(char *out, size_t size, const struct option *option, const void *field)
{
    static const uint64_t times[] = {3600000, 60000, 1000, 1};
    static const char *const time_units[] = {"h", "m", "s", "ms"};
    static const uint64_t sizes[] = {1 << 30, 1 << 20, 1 << 10, 1};
    static const char *const size_units[] = {"g", "m", "k", ""};
    switch (option->kind) {
    case OPTION_DURATION:
        print_scaled(out, size, *(const uint32_t *)field, times, time_units);
        break;
    case OPTION_BYTES:
        print_scaled(out, size, *(const uint32_t *)field, sizes, size_units);
        break;
    case OPTION_BYTES64:
        print_scaled(out, size, *(const uint64_t *)field, sizes, size_units);
        break;
    case OPTION_COUNT:
        snprintf(out, size, "%u", *(const uint32_t *)field);
        break;
    case OPTION_PROTOCOL:
        snprintf(out, size, "%s", protocol_names[*(const uint32_t *)field]);
        break;
    case OPTION_PROTOCOLS:
        print_protocols(out, size, *(const uint32_t *)field);
        break;
    case OPTION_SEND_PROXY:
        print_send_proxy(out, size, *(const uint32_t *)field);
        break;
    case OPTION_FLAG:
        snprintf(out, size, "%s", *(const bool *)field ? "true" : "false");
        break;
    }
}

struct slice options_describe(const struct option_set *set, const void *config, struct arena *arena)
{
    struct slice text = SLICE("");
    void *defaults = arena_zalloc(arena, set->config_size);
    if (!defaults)
        return text;
    set->init(defaults);
    for (size_t i = 0; i < set->count; i++) {
        const struct option *option = &set->options[i];
        char now[128];
        char usual[128];
        print_value(now, sizeof(now), option, (const char *)config + option->offset);
        print_value(usual, sizeof(usual), option, (const char *)defaults + option->offset);
        if (strcmp(now, usual) != 0)
            text =
                arena_printf(arena, "%s%s%s=%s", text.ptr, text.len ? " " : "", option->name, now);
    }
    return text;
}
