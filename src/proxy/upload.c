#include "proxy/upload.h"

#include <errno.h>

#include "base/clock.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "io/wait.h"

enum { LAST_SEND_MS = 1000 }; /* how long an end without force is waited for */

static int send_pieces(struct upload *upload, const struct slice *pieces, unsigned count)
{
    struct request *request = upload->request;
    bool ended = count == 0 || request->body.ended;
    int result = upload->client->ops->send_body(upload->client, pieces, count, ended,
                                                request->exchange->total_deadline);
    upload->progress_ms = io_now_ms(request->exchange->io);
    upload->finished = result == 0 && ended;
    return result;
}

static void pump(struct upload *upload)
{
    struct request *request = upload->request;
    while (!upload->finished) {
        struct slice pieces[BODY_SLICES_MAX];
        upload->awaits_client = true;
        int count =
            body_read(&request->body, pieces, BODY_SLICES_MAX, request->exchange->total_deadline);
        upload->awaits_client = false;
        if (count < 0) {
            /* The request can never be completed: the origin must not take it for complete, and
             * whoever awaits its response must hear. */
            upload->client_error = count;
            upload->client->ops->fail(upload->client, -ECONNABORTED);
            return;
        }
        int result = send_pieces(upload, pieces, (unsigned)count);
        if (result < 0) {
            upload->peer_error = result; /* it may have answered early: that is read elsewhere */
            if (result == -ETIMEDOUT)    /* but one that takes nothing more will not */
                upload->client->ops->fail(upload->client, -ECONNABORTED);
            return;
        }
    }
}

static void upload_main(void *arg)
{
    struct upload *upload = arg;
    if (upload->wait_continue)
        wait_wake(upload->request->exchange->io, DEADLINE_NEVER);
    upload->wait_continue = false;
    if (!coro_cancelled())
        pump(upload);
    upload->active = false;
    if (upload->waiter)
        coro_wake(upload->waiter, 0);
}

int upload_start(struct upload *upload)
{
    upload->progress_ms = io_now_ms(upload->request->exchange->io);
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
        struct io *io = upload->request->exchange->io;
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
