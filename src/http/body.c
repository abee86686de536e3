#include "http/body.h"

#include <errno.h>

void body_init_empty(struct body *body)
{
    *body = (struct body){.ended = true};
}

static int read_bytes(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    (void)max;
    (void)deadline;
    *out = slice_of(body->source, (size_t)body->length);
    body->ended = true;
    return 1;
}

static void release_bytes(struct body *body)
{
    (void)body;
}

static const struct body_ops bytes_ops = {.read = read_bytes, .release = release_bytes};

void body_init_bytes(struct body *body, struct slice bytes)
{
    body_init_empty(body);
    if (bytes.len)
        *body = (struct body){
            .ops = &bytes_ops, .source = (void *)bytes.ptr, .length = (int64_t)bytes.len};
}

bool body_rewind(struct body *body)
{
    if (body_is_empty(body) || (body->ops && !body->ended && body->bytes_read == 0))
        return true;
    if (body->ops != &bytes_ops)
        return false;
    body->ended = false;
    body->bytes_read = 0;
    return true;
}

int body_read(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    if (!body->ops || body->ended)
        return 0;
    int count = body->ops->read(body, out, max, deadline);
    for (int i = 0; i < count; i++)
        body->bytes_read += (int64_t)out[i].len;
    return count;
}

int body_splice(struct body *body, struct io_pipe **pipe, int64_t deadline)
{
    if (!body->ops || body->ended || !body->ops->splice)
        return -EOPNOTSUPP;
    int count = body->ops->splice(body, pipe, deadline);
    if (count > 0)
        body->bytes_read += count;
    return count;
}

void body_release(struct body *body)
{
    const struct body_ops *ops = body->ops;
    body->ops = 0;
    body->ended = true;
    if (ops)
        ops->release(body);
}
