#include "proxy/upstream_internal.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "monolake.h"

void upstream_config_init(struct upstream_config *config)
{
    *config = (struct upstream_config){
        .balance = BALANCE_ROUND_ROBIN,
        .connect_timeout_ms = 5000,
        .response_timeout_ms = 60000,
        .read_timeout_ms = 60000,
        .send_timeout_ms = 60000,
        .idle_timeout_ms = 60000,
        .keepalive_ms = 60000,
        .idle_max = 64,
        .streams_max = 100,
        .calls_max = 1,
        .frame_max_bytes = 16777216,
        .retries = 2,
        .fail_max = 3,
        .fail_timeout_ms = 10000,
        .pass_host = true,
        .response_head_max_bytes = 65536,
    };
}

static const char *copy_text(struct arena *arena, const char *text)
{
    return text ? arena_copy(arena, slice_from_cstr(text)).ptr : NULL;
}

static uint64_t hash_text(const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return hash;
}

static const char *fail(struct arena *arena, const char *address, const char *why)
{
    const char *text = arena_printf(arena, "\"%s\": %s", address, why).ptr;
    return text ? text : "out of memory";
}

static int add_peers(struct upstream *upstream, const struct upstream_config *config,
                     struct arena *arena, const char **error)
{
    struct balancer *balancer = &upstream->balancer;
    balancer->peers =
        arena_zalloc(&upstream->arena, config->peer_count * sizeof(balancer->peers[0]));
    if (!balancer->peers) {
        *error = "out of memory";
        return -ENOMEM;
    }
    for (unsigned i = 0; i < config->peer_count; i++) {
        const char *why;
        struct upstream_peer *entry = &balancer->peers[i];
        entry->peer = peer_get(upstream->io, &upstream->config, config->peers[i], &why);
        if (!entry->peer) {
            *error = fail(arena, config->peers[i], why);
            return -EINVAL;
        }
        entry->weight = config->weights ? config->weights[i] : 1;
        entry->hash = hash_text(config->peers[i]);
        balancer->weighted |= entry->weight != balancer->peers[0].weight;
        balancer->count++;
    }
    return 0;
}

static void copy_idempotent(struct upstream *upstream, const struct upstream_config *config)
{
    unsigned count = config->idempotent_count;
    const char **names = arena_alloc(&upstream->arena, (count + 1) * sizeof(*names));
    upstream->config.idempotent = names;
    upstream->config.idempotent_count = names ? count : 0;
    for (unsigned i = 0; names && i < count; i++)
        names[i] = copy_text(&upstream->arena, config->idempotent[i]);
}

struct upstream *upstream_open(struct io *io, const struct upstream_config *config,
                               struct arena *arena, const char **error)
{
    struct upstream *upstream = calloc(1, sizeof(*upstream));
    *error = "out of memory";
    if (!upstream)
        return NULL;
    upstream->users = 1;
    upstream->io = io;
    upstream->config = *config;
    list_init(&upstream->waiters);
    list_init(&upstream->waited_for);
    arena_init(&upstream->arena);
    upstream->config.name =
        copy_text(&upstream->arena, config->name ? config->name : config->peers[0]);
    upstream->config.hash_header = copy_text(&upstream->arena, config->hash_header);
    upstream->config.tls_name = copy_text(&upstream->arena, config->tls_name);
    upstream->config.tls_key = copy_text(&upstream->arena, config->tls_key);
    upstream->balancer.rule = config->balance;
    upstream->balancer.hash_header = upstream->config.hash_header;
    upstream->balancer.random = (uint64_t)clock_now_us() | 1;
    copy_idempotent(upstream, config);
    if (!upstream->config.name || add_peers(upstream, config, arena, error) != 0) {
        upstream_release(upstream);
        return NULL;
    }
    return upstream;
}

void upstream_release(struct upstream *upstream)
{
    if (--upstream->users)
        return;
    for (unsigned i = 0; i < upstream->balancer.count; i++)
        peer_release(upstream->balancer.peers[i].peer);
    arena_fini(&upstream->arena);
    free(upstream);
}

const char *upstream_name(const struct upstream *upstream)
{
    return upstream->config.name;
}

static int check_name(struct slice host, struct arena *arena, const char **why)
{
    struct slice name = arena_copy(arena, host);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int code = name.ptr ? getaddrinfo(name.ptr, NULL, &hints, &found) : EAI_MEMORY;
    if (code != 0) {
        *why = gai_strerror(code);
        return -1;
    }
    freeaddrinfo(found);
    return 0;
}

int upstream_check(const struct upstream_config *config, struct arena *arena, const char **error)
{
    for (unsigned i = 0; i < config->peer_count; i++) {
        const char *why;
        struct address address;
        struct slice host;
        uint16_t port;
        struct slice text = slice_from_cstr(config->peers[i]);
        if (address_parse(text, &address, &why) == 0)
            continue;
        if (address_split(text, &host, &port, &why) != 0 || check_name(host, arena, &why) != 0) {
            *error = fail(arena, config->peers[i], why);
            return -1;
        }
    }
    return 0;
}

void upstreams_close_idle(void)
{
    peers_close_idle();
}

static struct response *handle(void *self, struct request *request, struct ml_next *next)
{
    (void)next;
    return upstream_forward(self, request);
}

const ml_layer upstream_layer = {.abi = ML_ABI, .name = "proxy", .handle = handle};
