/* What a listener allows its clients. */
#ifndef HTTP_LISTENER_CONFIG_H
#define HTTP_LISTENER_CONFIG_H

#include "http/h2_guard.h"

#include <stdbool.h>
#include <stdint.h>

struct cidr_sets;
struct connection;
struct tls_hello_hook;
struct tls_server;

/* Bits of listener_config.protocols. */
enum {
    PROTOCOL_H1 = 1,
    PROTOCOL_H2 = 2,  /* agreed on with TLS (ALPN) */
    PROTOCOL_H2C = 4, /* in the clear, with prior knowledge */
};

/* Whose PROXY protocol headers a listener reads. */
struct proxy_accept {
    const struct cidr_sets *from; /* who may send them; others are served as they are */
    uint32_t timeout_ms;          /* accept to the end of the header */
    bool optional;                /* they may also send none */
};

/* Limits and deadlines. Defaults stand in listener_config_init; times in milliseconds. */
struct listener_config {
    uint32_t head_timeout_ms;         /* 10,000: first byte of a head to its end -> 408 */
    uint32_t body_timeout_ms;         /* 30,000: between two reads of a request body -> 408 */
    uint32_t send_timeout_ms;         /* 30,000: one send to the client without progress */
    uint32_t idle_timeout_ms;         /* 75,000: between requests */
    uint32_t tunnel_idle_timeout_ms;  /* 3,600,000: an upgraded connection on which nothing moves */
    uint32_t half_closed_timeout_ms;  /* 0: as that; a tunnel of which one side has ended */
    uint32_t keepalive_ms;            /* 60,000: tunnels: TCP asks a silent client; 0: never */
    uint32_t ack_timeout_ms;          /* 0: the kernel's; tunnels: nothing is acknowledged */
    uint32_t total_timeout_ms;        /* 0: none; one whole exchange */
    uint32_t request_line_max_bytes;  /* 8,192 -> 414 */
    uint32_t head_max_bytes;          /* 32,768 -> 431 */
    uint32_t header_count_max;        /* 100 -> 431 */
    uint64_t body_max_bytes;          /* 0: no bound -> 413 */
    uint32_t requests_max;            /* 0: no bound; requests per connection */
    uint32_t active_max;              /* 0: no bound; requests under way in the worker */
    uint32_t queue_time_max_ms;       /* 0: no bound; from the kernel's word to its beginning */
    uint32_t connections_max;         /* 0: no bound; per worker */
    uint32_t handshake_timeout_ms;    /* 10,000: accept to the end of the TLS handshake */
    struct tls_server *tls;           /* NULL: in the clear; the generation's, as is the next */
    struct tls_hello_hook *tls_hello; /* asked for certificates, or NULL */
    const struct proxy_accept *proxy; /* NULL: headers of the PROXY protocol are not read */
    uint32_t protocols;               /* PROTOCOL_*; h1 and h2 */
    uint32_t h2_streams_max;          /* 128: open at once on an HTTP/2 connection */
    uint32_t h2_window_bytes;         /* 65,535: of a request's body on its way, per stream */
    struct h2_guard_limits h2_limits; /* 200, 100, 1,000 */
    /* Serves its connections, behind TLS if there is any, in place of HTTP (NULL). Called from the
     * loop before or after the stream has started; must not close the stream at once. */
    void (*start)(struct connection *connection);
    uint32_t connection_descriptors; /* 1: that one connection needs, by and large */
    const struct cidr_sets *allow; /* none but these clients; NULL: all; the generation's, as is */
    const struct cidr_sets *deny;  /* whom to refuse even then, or NULL */
    uint32_t connections_per_source; /* 0: no bound; all workers together, as are those below */
    uint32_t source_prefix_v4_bits;  /* 32: addresses that share so many bits are one source */
    uint32_t source_prefix_v6_bits;  /* 64 */
    uint32_t connections_total_max;  /* 0: no bound; others wait in the kernel's queue, */
    uint32_t accept_rate;            /* 0: no bound; connections a second; as do others here */
    uint32_t accept_burst;           /* 0: a second's worth; how many of them at once */
    uint32_t frame_max_bytes;        /* 16,777,216: Thrift, one message; 0: no bound */
    uint32_t calls_max;              /* 32: Thrift, unanswered on a connection; 0: no bound */
    bool ordered_replies;            /* true: Thrift, replies come in the order of their calls */
    uint32_t flows_max;              /* 16,384: UDP, per worker */
    uint32_t flow_queue_max;         /* 16: datagrams of a flow that wait for its layers */
    uint32_t receive_buffer_bytes;   /* 0: the system's; of a UDP socket */
    uint32_t send_buffer_bytes;
    uint32_t setup_timeout_ms; /* 60,000: layer 4, start of the chain to the peer's connection */
};

/* Fills in the defaults. */
void listener_config_init(struct listener_config *config);

#endif
