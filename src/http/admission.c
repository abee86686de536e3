#include "http/admission.h"

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
        log_info("connection from %s refused: %s (%u more were not logged)", client, why,
                 suppressed);
    else
        log_info("connection from %s refused: %s", client, why);
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

bool admission_check(struct http_server *server, const struct address *remote, uint64_t *source)
{
    static struct log_limit denials;
    static struct log_limit crowds;
    const struct listener_config *config = &server->config;
    const char *why = denied(config, remote);
    *source = 0;
    if (why) {
        server->denied++;
        log_refusal(remote, &denials, why);
        return false;
    }
    if (!config->connections_per_source)
        return true;
    *source = limits_source(&server->limits, server->limits_listener, remote,
                            config->source_prefix_v4_bits, config->source_prefix_v6_bits);
    if (!*source || limits_take_source(&server->limits, *source, config->connections_per_source))
        return true;
    *source = 0;
    server->over_source_limit++;
    log_refusal(remote, &crowds, "too many connections from there (connections_per_source)");
    return false;
}

bool admission_enter(struct connection *connection)
{
    admission_leave(connection);
    return admission_check(connection->listener, &connection->stream.remote, &connection->source);
}

void admission_leave(struct connection *connection)
{
    if (connection->source)
        limits_give_source(&connection->listener->limits, connection->source);
    connection->source = 0;
}
