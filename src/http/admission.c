#include "http/admission.h"

#include "base/counters.h"
#include "base/log.h"
#include "http/connection.h"
#include "net/cidr.h"

enum { REFUSALS_LOGGED_PER_S = 1 };

/* Whoever floods us should not fill the log, too. */
static void log_refusal(const struct address *remote, struct log_limit *limit, const char *why)
{
    char client[ADDRESS_TEXT_MAX];
    uint32_t suppressed;
    if (!log_limit_pass(limit, REFUSALS_LOGGED_PER_S, &suppressed))
        return;
    address_format(remote, client);
    if (suppressed)
        log_info("client %s refused: %s (%u more were not logged)", client, why, suppressed);
    else
        log_info("client %s refused: %s", client, why);
}

/* Deny wins over allow, whatever stands in them. */
static const char *denied(const struct listener_config *config, const struct address *remote)
{
    if (config->deny && cidr_sets_contain(config->deny, remote))
        return "its address is denied";
    if (config->allow && !cidr_sets_contain(config->allow, remote))
        return "its address is not among those allowed";
    return NULL;
}

void admission_init(struct admission *admission)
{
    *admission = (struct admission){.listener = LIMITS_NONE};
}

void admission_share(struct admission *admission, const struct limits *limits, const char *name)
{
    admission->limits = *limits;
    admission->listener = limits_listener(limits, name);
    if (limits->shared && admission->listener == LIMITS_NONE)
        log_warn("%s is one address too many since the start: what counts over all workers "
                 "(connections_per_source, connections_total_max, accept_rate) does not hold there "
                 "until the next start",
                 name);
}

static uint64_t source_of(const struct admission *admission, const struct listener_config *config,
                          const struct address *remote)
{
    return limits_source(&admission->limits, admission->listener, remote,
                         config->source_prefix_v4_bits, config->source_prefix_v6_bits);
}

uint64_t admission_count(const struct admission *admission, const struct listener_config *config,
                         const struct address *remote)
{
    uint64_t source = config->connections_per_source ? source_of(admission, config, remote) : 0;
    return source && limits_take_source(&admission->limits, source, UINT32_MAX) ? source : 0;
}

bool admission_check(struct admission *admission, const struct listener_config *config,
                     const struct address *remote, uint64_t *source)
{
    static struct log_limit denials;
    static struct log_limit crowds;
    const char *why = denied(config, remote);
    *source = 0;
    if (why) {
        admission->denied++;
        counters_add(COUNTER_REFUSED_DENIED, 1);
        log_refusal(remote, &denials, why);
        return false;
    }
    if (!config->connections_per_source)
        return true;
    *source = source_of(admission, config, remote);
    if (!*source || limits_take_source(&admission->limits, *source, config->connections_per_source))
        return true;
    *source = 0;
    admission->over_source_limit++;
    counters_add(COUNTER_REFUSED_SOURCE, 1);
    log_refusal(remote, &crowds, "too many connections from there (connections_per_source)");
    return false;
}

static uint32_t burst(const struct listener_config *config)
{
    return config->accept_burst ? config->accept_burst : config->accept_rate;
}

uint32_t admission_rate_left(const struct admission *admission,
                             const struct listener_config *config)
{
    if (!config->accept_rate)
        return UINT32_MAX;
    return limits_rate_left(&admission->limits, admission->listener, config->accept_rate,
                            burst(config));
}

void admission_rate_take(const struct admission *admission, const struct listener_config *config)
{
    if (config->accept_rate)
        limits_rate_take(&admission->limits, admission->listener, config->accept_rate,
                         burst(config));
}

void admission_give(const struct admission *admission, uint64_t *source)
{
    if (*source)
        limits_give_source(&admission->limits, *source);
    *source = 0;
}

bool admission_enter(struct connection *connection)
{
    admission_leave(connection);
    struct http_server *listener = connection->listener;
    return admission_check(&listener->admission, &listener->config, &connection->stream.remote,
                           &connection->source);
}

void admission_leave(struct connection *connection)
{
    admission_give(&connection->listener->admission, &connection->source);
}
