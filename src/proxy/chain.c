#include "proxy/chain.h"

struct response *ml_next_call(struct ml_next *next, struct request *request)
{
    while (next && next->index >= next->chain->count)
        next = next->then;
    if (!next)
        return response_create_text(request, 404, SLICE("Not Found\n"));
    const struct chain_step *step = &next->chain->steps[next->index];
    struct ml_next after = {next->chain, next->index + 1, next->then};
    return step->layer->handle(step->self, request, &after);
}

struct response *chain_run_then(const struct chain *chain, struct request *request,
                                struct ml_next *then)
{
    struct ml_next first = {chain, 0, then};
    return ml_next_call(&first, request);
}

struct response *chain_run(const struct chain *chain, struct request *request)
{
    return chain_run_then(chain, request, NULL);
}
