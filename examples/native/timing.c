/* Adds "server-timing" to every response; the name of the metric is the configuration. */
#include <monolake.h>

#include <stdlib.h>
#include <string.h>

struct timing {
    char metric[32];
};

/* The configuration is a JSON text: null, or a string of letters. */
static void *timing_create(const char *config_json, const char **error)
{
    struct timing *timing = calloc(1, sizeof(*timing));
    if (!timing)
        return NULL;
    memcpy(timing->metric, "total", sizeof("total"));
    if (strcmp(config_json, "null") == 0)
        return timing;

    size_t len = strspn(config_json + 1, "abcdefghijklmnopqrstuvwxyz");
    if (config_json[0] != '"' || config_json[len + 1] != '"' || len == 0 ||
        len >= sizeof(timing->metric)) {
        *error = "expected the name of the metric: up to 31 small letters";
        free(timing);
        return NULL;
    }
    memcpy(timing->metric, config_json + 1, len);
    timing->metric[len] = '\0';
    return timing;
}

static ml_response *timing_handle(void *self, ml_request *request, ml_next *next)
{
    const struct timing *timing = self;
    uint64_t start_us = ml_now_us();
    ml_response *response = ml_next_call(next, request);
    if (!response)
        return NULL; /* the client is gone, or there is no memory: the server knows what to do */

    double ms = (double)(ml_now_us() - start_us) / 1e3;
    ml_header_setf(response, "server-timing", "%s;dur=%.3f", timing->metric, ms);
    return response;
}

const ml_layer monolake_layer = {
    .abi = ML_ABI,
    .name = "timing",
    .create = timing_create,
    .destroy = free,
    .handle = timing_handle,
};
