#include "proxy/upload.h"

#include <errno.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "http/h1_write.h"
#include "io/wait.h"

enum { LAST_SEND_MS = 1000 }; /* how long an end without force is waited for */

static void put(struct iovec *iov, unsigned *count, struct slice bytes)
{
    if (bytes.len)
        iov[(*count)++] = (struct iovec){(void *)bytes.ptr, bytes.len};
}

static struct slice last_chunk(struct request *request)
{
    uint32_t at = 0;
    if (!headers_next(&request->trailers, &at))
        return SLICE("0\r\n\r\n");
    struct h1_out out = {.arena = request->arena};
    h1_out_append(&out, SLICE("0\r\n"));
    h1_out_end_to_end_fields(&out, &request->trailers, false, 0);
    h1_out_append(&out, SLICE("\r\n"));
    return out.failed ? SLICE("0\r\n\r\n") : slice_of(out.data, out.len);
}

static int send_pieces(struct upload *upload, const struct slice *pieces, unsigned count)
{
    struct iovec iov[BODY_SLICES_MAX + 3]; /* chunk header, CRLF, last chunk */
    char header[H1_CHUNK_HEADER_MAX_BYTES];
    unsigned used = 0;
    size_t total = 0;
    bool ended = count == 0 || upload->request->body.ended;
    for (unsigned i = 0; i < count; i++)
        total += pieces[i].len;
    if (upload->chunked && total)
        put(iov, &used, slice_of(header, h1_chunk_header(header, total)));
    for (unsigned i = 0; i < count; i++)
        put(iov, &used, pieces[i]);
    if (upload->chunked && total)
        put(iov, &used, SLICE("\r\n"));
    if (upload->chunked && ended)
        put(iov, &used, last_chunk(upload->request));
    int result = 0;
    if (used)
        result =
            h1_client_send(upload->client, iov, used, upload->request->exchange->total_deadline);
    upload->progress_ms = io_now_ms(upload->client->stream.io);
    upload->finished = result == 0 && ended;
    return result;
}

static void pump(struct upload *upload)
{
    struct request *request = upload->request;
    while (!upload->finished) {
        struct slice pieces[BODY_SLICES_MAX];
        int count =
            body_read(&request->body, pieces, BODY_SLICES_MAX, request->exchange->total_deadline);
        if (count < 0) {
            /* The request can never be completed: the origin must not take it for complete, and
             * whoever awaits its response must hear. */
            upload->client_error = count;
            stream_fail(&upload->client->stream, -ECONNABORTED);
            return;
        }
        int result = send_pieces(upload, pieces, (unsigned)count);
        if (result < 0) {
            upload->peer_error = result; /* it may have answered early: that is read elsewhere */
            if (result == -ETIMEDOUT)    /* but one that takes nothing more will not */
                stream_fail(&upload->client->stream, -ECONNABORTED);
            return;
        }
    }
}

static void upload_main(void *arg)
{
    struct upload *upload = arg;
    if (upload->wait_continue)
        wait_wake(upload->client->stream.io, DEADLINE_NEVER);
    upload->wait_continue = false;
    if (!coro_cancelled())
        pump(upload);
    upload->active = false;
    if (upload->waiter)
        coro_wake(upload->waiter, 0);
}

int upload_start(struct upload *upload)
{
    upload->progress_ms = io_now_ms(upload->client->stream.io);
    upload->active = true;
    upload->coro = coro_start(upload_main, upload);
    if (!upload->coro)
        upload->active = false;
    return upload->coro ? 0 : -ENOMEM;
}

void upload_continue(struct upload *upload)
{
    if (upload->active && upload->wait_continue)
        coro_wake(upload->coro, 0);
}

void upload_join(struct upload *upload, bool cancel)
{
    if (upload->active && !cancel) {
        struct io *io = upload->client->stream.io;
        upload->waiter = coro_self();
        wait_wake(io, io_now_ms(io) + LAST_SEND_MS);
        upload->waiter = NULL;
    }
    if (upload->active)
        coro_cancel(upload->coro);
    while (upload->active) {
        upload->waiter = coro_self();
        coro_wait(NULL, NULL);
        upload->waiter = NULL;
    }
}
