/*
 * Upstreams: named groups of peers with a balancing rule, passive health and pools of idle
 * connections. They outlive generations: a reload that names the same upstream keeps its pools and
 * health. Resolving names and acquiring connections may suspend.
 */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H

#include "base/arena.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct io;
struct request;
struct tls_client;
struct upstream;

/* What the peers speak; h2 in the clear is known beforehand (RFC 9113 section 3.3). */
enum upstream_protocol {
    UPSTREAM_H1,
    UPSTREAM_H2,
    UPSTREAM_TCP, /* anything: for layer 4 */
    UPSTREAM_THRIFT,
    UPSTREAM_UDP,  /* datagrams: for layer 4 */
    UPSTREAM_AUTO, /* h1 or h2, as each peer agrees by ALPN */
};

/* Bits of upstream_config.send_proxy: the version of the PROXY protocol, and what else version 2
 * says. */
enum {
    SEND_PROXY_V1 = 1,
    SEND_PROXY_V2 = 2,
    SEND_PROXY_ALPN = 4,
    SEND_PROXY_AUTHORITY = 8,
    SEND_PROXY_SSL = 16,
    SEND_PROXY_UNIQUE_ID = 32,
    SEND_PROXY_CRC32C = 64,
};

enum balance { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM, BALANCE_HASH };

/* Defaults stand in upstream_config_init. All times in milliseconds. */
struct upstream_config {
    const char *name;   /* unique; default: the first peer's address */
    const char **peers; /* "127.0.0.1:80", "host:80", "[::1]:80", "unix:/path" */
    unsigned *weights;  /* 1..1000 each, or NULL: all 1 */
    unsigned peer_count;
    enum upstream_protocol protocol; /* UPSTREAM_H1 */
    enum balance balance;
    const char *hash_header;      /* BALANCE_HASH: field to hash; NULL: the client's address */
    uint32_t connect_timeout_ms;  /* 5,000: TCP connect, per attempt */
    uint32_t response_timeout_ms; /* 60,000: request sent to response head */
    uint32_t read_timeout_ms;     /* 60,000: between two reads of the body */
    uint32_t send_timeout_ms;     /* 60,000: one send without progress */
    uint32_t idle_timeout_ms;     /* 60,000: an unused connection is closed */
    uint32_t keepalive_ms;        /* 60,000: tunnels: TCP asks a silent peer; 0: never */
    uint32_t ack_timeout_ms;      /* 0: the kernel's; tunnels: nothing is acknowledged */
    unsigned idle_max;            /* 64: unused connections kept per peer and worker */
    unsigned connections_max;     /* 0: no bound; open connections per peer and worker */
    unsigned streams_max;     /* 100: exchanges at a time on one h2 connection; 0: as many as the
                                 origin allows */
    unsigned calls_max;       /* 1: calls at a time on one Thrift connection; 0: any number */
    uint32_t frame_max_bytes; /* 16,777,216: a reply of Thrift; 0: no bound */
    const char **idempotent;  /* Thrift: names of methods that may be called again, "get*" */
    unsigned idempotent_count;
    uint32_t ping_interval_ms; /* 0: none; an h2 connection silent for so long is asked for a sign,
                                  and closed if it gives none for as long again */
    unsigned retries;          /* 2: further attempts where a retry is safe */
    unsigned fail_max;         /* 3: failures in a row after which a peer is down */
    uint32_t fail_timeout_ms;  /* 10,000: how long it stays down */
    bool forwarded;            /* add Forwarded (RFC 7239) */
    bool x_forwarded;          /* add X-Forwarded-For, -Proto, -Host */
    bool pass_host;            /* true (default): Host as the client sent it; false: the peer's */
    uint32_t send_proxy;       /* SEND_PROXY_*; 0: peers are not told who the client is */
    uint32_t response_head_max_bytes; /* 65,536 */
    struct tls_client *tls;           /* NULL: in the clear; borrowed */
    const char *tls_name;             /* what peers must prove; NULL: each its host */
    const char *tls_key;              /* equal for equal settings */
};

void upstream_config_init(struct upstream_config *config);

/* The upstream of that name, created or brought up to date; retained. The config is copied. NULL
 * with *error (arena text) when an address is wrong. */
struct upstream *upstream_open(struct io *io, const struct upstream_config *config,
                               struct arena *arena, const char **error);
void upstream_release(struct upstream *upstream);

const char *upstream_name(const struct upstream *upstream);

/* For -t: resolves every peer's name now (blocking). Returns 0, or -1 with *error in the arena. */
int upstream_check(const struct upstream_config *config, struct arena *arena, const char **error);

/* Forwards the request to a peer and returns its response, or a 502/503/504 of ours with the error
 * set; NULL if the exchange was cancelled. */
struct response *upstream_forward(struct upstream *upstream, struct request *request);

/* Drops idle connections; at worker exit. */
void upstreams_close_idle(void);

/* The native leaf: self is a struct upstream. */
extern const struct ml_layer upstream_layer;

#endif
