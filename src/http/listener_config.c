#include "http/listener_config.h"

void listener_config_init(struct listener_config *config)
{
    *config = (struct listener_config){
        .head_timeout_ms = 10000,
        .body_timeout_ms = 30000,
        .send_timeout_ms = 30000,
        .idle_timeout_ms = 75000,
        .tunnel_idle_timeout_ms = 3600000,
        .keepalive_ms = 60000,
        .handshake_timeout_ms = 10000,
        .request_line_max_bytes = 8192,
        .head_max_bytes = 32768,
        .header_count_max = 100,
        .protocols = PROTOCOL_H1 | PROTOCOL_H2,
        .h2_streams_max = 128,
        .h2_window_bytes = 65535,
        .h2_limits = {.resets_max = 200, .faults_max = 100, .control_max = 1000},
        .frame_max_bytes = 16777216,
        .calls_max = 32,
        .ordered_replies = true,
        .source_prefix_v4_bits = 32,
        .source_prefix_v6_bits = 64,
        .connection_descriptors = 1,
        .setup_timeout_ms = 60000,
        .flows_max = 16384,
        .flow_queue_max = 16,
    };
}
