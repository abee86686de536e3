#include "http/h1_client.h"

#include <errno.h>
#include <stdlib.h>

static void client_closed(struct stream *stream)
{
    struct h1_client *client = stream->owner;
    if (client->on_closed)
        client->on_closed(client);
    free(client);
}

int h1_client_open(struct h1_client **out, struct io *io, const struct address *address,
                   int64_t deadline)
{
    struct h1_client *client = calloc(1, sizeof(*client));
    if (!client)
        return -ENOMEM;
    int result = stream_connect(&client->stream, io, address, deadline);
    if (result < 0) {
        free(client);
        return result;
    }
    client->stream.owner = client;
    client->stream.on_closed = client_closed;
    list_init(&client->link);
    timer_init(&client->idle, NULL, client);
    h1_input_init(&client->input, &client->stream, false);
    client->input.ended = true;
    stream_start(&client->stream);
    *out = client;
    return 0;
}

void h1_client_begin_request(struct h1_client *client)
{
    client->head.keep_alive = false;
    client->input.ended = false;
    client->input.failed = 0;
}

int h1_client_send(struct h1_client *client, struct iovec *iov, unsigned count, int64_t deadline)
{
    return stream_send(&client->stream, iov, count, deadline);
}

int h1_client_read_head(struct h1_client *client, struct response *response,
                        const struct h1_limits *limits, const char **why, int64_t deadline)
{
    struct slice head;
    int refusal = 0;
    int result =
        h1_input_read_head(&client->input, response->arena, limits, &head, &refusal, why, deadline);
    if (result == H1_INPUT_REFUSED)
        return -EPROTO;
    if (result == H1_INPUT_END)
        return -ECONNRESET;
    if (result < 0)
        return result;
    refusal = h1_parse_response(response, response->request->method, head.ptr, (uint32_t)head.len,
                                limits, &client->head, why);
    if (refusal < 0)
        return refusal == H1_NO_MEMORY ? -ENOMEM : -EPROTO;
    return 0;
}

void h1_client_begin_body(struct h1_client *client, struct response *response,
                          const struct body_ops *ops)
{
    client->answers++;
    h1_input_begin_body(&client->input, &client->head, &response->body, ops, &response->trailers,
                        response->arena);
}

bool h1_client_heard(const struct h1_client *client)
{
    return client->stream.first || h1_input_inside_head(&client->input);
}

bool h1_client_reusable(const struct h1_client *client)
{
    return client->head.keep_alive && client->input.ended && !client->input.failed &&
           stream_quiet(&client->stream);
}

void h1_client_close(struct h1_client *client)
{
    timer_stop(&client->idle);
    list_remove(&client->link);
    h1_input_fini(&client->input);
    if (client->input.ended)
        stream_close(&client->stream);
    else
        stream_abort(&client->stream);
}
