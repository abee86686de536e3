#include "l4/http_site.h"

#include <errno.h>

#include "l4/conn.h"
#include "proxy/access_log.h"
#include "proxy/site.h"

static struct response *service_handle(struct service *service, struct request *request)
{
    const struct l4_http_site *http = container_of(service, struct l4_http_site, service);
    return chain_run(http->chain, request);
}

static void service_retain(struct service *service)
{
    site_retain(container_of(service, struct l4_http_site, service)->site);
}

static void service_release(struct service *service)
{
    site_release(container_of(service, struct l4_http_site, service)->site);
}

static void service_refused(struct service *service, struct request *request, const char *why)
{
    access_log_refused(container_of(service, struct l4_http_site, service)->chain, request, why);
}

void l4_http_site_init(struct l4_http_site *http, struct site *site, const struct chain *chain,
                       const struct listener_config *config)
{
    http->site = site;
    http->chain = chain;
    http->service =
        (struct service){service_handle, service_retain, service_release, service_refused};
    http_server_init(&http->server, NULL);
    http->server.config = *config;
    http->server.service = &http->service; /* not retained: both are the site's */
}

int l4_http_site_serve(struct l4_http_site *http, struct l4_conn *conn)
{
    if (http->server.config.tls && conn->exchange->request.tls)
        return -EPROTO;
    conn->next_server = &http->server;
    return 0;
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    struct l4_conn *conn = l4_conn_of(request);
    (void)next;
    if (!conn || l4_http_site_serve(self, conn) != 0)
        return response_create_error(request, 500, RESPONSE_LAYER_FAILED,
                                     SLICE("HTTP with TLS stands behind a listener with TLS"));
    return response_create(request, 200);
}

const ml_layer l4_http_layer = {.abi = ML_ABI, .name = "http", .handle = handle};
