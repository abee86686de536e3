/*
 * Forwarding: one exchange with an upstream, with as many attempts as are safe.
 *
 *   pick a peer ─▶ a connection (idle or new) ─▶ send head and body ─▶ response head ─▶ response
 *        ▲               │ cannot connect              │ closed without an answer
 *        └── next peer ◀─┴── same peer, new connection ◀┘ (only what may be sent twice)
 *
 * The response's body is pulled later, by whoever sends it on; when it is released the connection
 * goes back to its peer or is closed. Suspends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/exchange.h"
#include "io/wait.h"
#include "net/stream.h"
#include "proxy/dial.h"
#include "proxy/forward_request.h"
#include "proxy/pick.h"
#include "proxy/send_proxy.h"
#include "proxy/upload.h"
#include "proxy/upstream_internal.h"
#include "thrift/exchange.h"
#include "thrift/gather.h"

enum {
    /* An origin that never says 100 gets the body all the same (RFC 9110 section 10.1.1). */
    CONTINUE_WAIT_MS = 1000,
    INTERIM_MAX = 32, /* 1xx responses to one request */
};

/* One exchange with an upstream; lives in the request's arena. */
struct forwarding {
    struct upstream *upstream;
    struct request *request;
    struct io *io;
    struct exchange *exchange;
    struct tried tried;
    struct upstream_peer *entry;    /* of the present attempt */
    struct client_exchange *client; /* of the present attempt; NULL when settled */
    struct response *response;
    struct upload upload;
    struct slice body_start; /* body bytes that go along with the head */
    bool body_begun;         /* body_start is filled */
    bool replayable;         /* all that was read of the body can be sent again */
    bool force_new;          /* an idle connection has just let us down */
    bool sent;               /* the head of the present attempt is out */
    unsigned attempts;       /* that count against the retries */
    int64_t room_deadline;   /* when to wait no longer for room at a peer; 0: nobody waits */
};

/* What became of an attempt. */
enum outcome {
    DONE,      /* there is a response */
    STALE,     /* a reused connection closed without an answer */
    NO_ANSWER, /* a new one did */
    REFUSED,   /* the origin has not looked at the request */
    FULL,      /* others have taken the room that the peer had */
    UNREACHABLE,
    FAILED, /* a response of ours is made; no further attempt */
    CANCELLED,
};

static void settle(void *arg);

/* --- Failures --------------------------------------------------------------------------------- */

static enum outcome fail(struct forwarding *forwarding, uint16_t status, enum response_error error,
                         const char *what, const char *why)
{
    struct slice text =
        arena_printf(forwarding->request->arena, "%s: upstream \"%s\"%s%s: %s", what,
                     forwarding->upstream->config.name, forwarding->entry ? ", peer " : "",
                     forwarding->entry ? forwarding->entry->peer->text : "", why);
    forwarding->response = response_create_error(forwarding->request, status, error, text);
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("request %llu %.*s %.*s: %.*s%s", (unsigned long long)forwarding->request->id,
                 (int)forwarding->request->method_name.len, forwarding->request->method_name.ptr,
                 (int)forwarding->request->path.len, forwarding->request->path.ptr, (int)text.len,
                 text.ptr, suppressed ? " (and more like it)" : "");
    return FAILED;
}

/* The client's side failed while its body was being sent on. */
static enum outcome fail_client(struct forwarding *forwarding, int error)
{
    if (error == -ECANCELED || coro_cancelled())
        return CANCELLED;
    if (error == -EIO)
        return fail(forwarding, 500, RESPONSE_LAYER_FAILED, "request body", "a layer failed");
    uint16_t status = error == -ETIMEDOUT ? 408 : error == -EMSGSIZE ? 413 : 400;
    enum response_error reason = error == -EMSGSIZE ? RESPONSE_BODY_TOO_LARGE : RESPONSE_MALFORMED;
    return fail(forwarding, status, reason, "request body", strerror(-error));
}

/* --- Sending ---------------------------------------------------------------------------------- */

/* Takes what is there of the body, so that a small one goes out with the head in one send and can
 * be sent again on another connection. */
static void begin_body(struct forwarding *forwarding)
{
    struct request *request = forwarding->request;
    struct body *body = &request->body;
    forwarding->body_begun = true;
    forwarding->replayable = true;
    forwarding->exchange->sent_body = (struct slice){NULL, 0};
    if (body_is_empty(body) || request->expects_continue)
        return;
    struct slice piece;
    int count = body_read(body, &piece, 1, DEADLINE_NOW);
    if (count == 0) /* in chunks, but none of them */
        forwarding->exchange->sent_body = SLICE("");
    if (count <= 0)
        return; /* an error shows again in the upload */
    forwarding->body_start = arena_copy(request->arena, piece);
    forwarding->replayable = forwarding->body_start.ptr && body->ended;
    if (forwarding->replayable)
        forwarding->exchange->sent_body = forwarding->body_start;
}

static bool body_left(const struct request *request)
{
    return !body_is_empty(&request->body) && !request->body.ended;
}

/* An early response has reached the layers, and one of them wants the body back. */
static void end_upload(void *arg)
{
    struct forwarding *forwarding = arg;
    upload_join(&forwarding->upload, true);
}

/* Returns 0 or a negative errno of the peer's side. */
static int send_request(struct forwarding *forwarding)
{
    struct request *request = forwarding->request;
    if (!forwarding->body_begun)
        begin_body(forwarding);
    struct client_exchange *client = forwarding->client;
    struct client_head head;
    int result = forward_make_head(&head, request, &forwarding->upstream->config,
                                   forwarding->entry->peer->text);
    if (result == 0)
        result = client->ops->send_head(client, &head, forwarding->body_start,
                                        forwarding->exchange->total_deadline);
    if (result < 0 || !body_left(request))
        return result;
    forwarding->upload = (struct upload){
        .request = request,
        .client = client,
        .wait_continue = request->expects_continue,
    };
    forwarding->exchange->body_user = forwarding;
    forwarding->exchange->end_body_use = end_upload;
    return upload_start(&forwarding->upload);
}

/* --- Receiving -------------------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Tells the client to send its body. Returns 0 or a negative errno of the client's side. */
static int let_body_come(struct forwarding *forwarding)
{
    int result = 0;
    if (forwarding->request->expects_continue)
        result = forwarding->exchange->codec->send_interim(forwarding->exchange, 100, NULL);
    upload_continue(&forwarding->upload);
    return result;
}

/* When to stop waiting for a head, or to look again: while the upload makes progress, or waits for
 * the client, the origin's time to answer has not begun. */
static int64_t head_deadline(const struct forwarding *forwarding, int64_t sent_ms)
{
    const struct upload *upload = &forwarding->upload;
    int64_t since = upload->progress_ms > sent_ms ? upload->progress_ms : sent_ms;
    if (upload->awaits_client)
        since = io_now_ms(forwarding->io);
    const struct thrift_message *call = forwarding->request->thrift;
    uint32_t timeout_ms = call && call->timeout_ms
                              ? call->timeout_ms
                              : forwarding->upstream->config.response_timeout_ms;
    return earlier(since + timeout_ms, forwarding->exchange->total_deadline);
}

/* Waits for a head; meanwhile decides for an origin that does not answer to "100-continue". */
static int read_head(struct forwarding *forwarding, const char **why, int64_t sent_ms)
{
    struct client_exchange *client = forwarding->client;
    for (;;) {
        int64_t deadline = head_deadline(forwarding, sent_ms);
        int64_t continue_at = sent_ms + CONTINUE_WAIT_MS;
        bool undecided = forwarding->request->expects_continue;
        if (deadline <= io_now_ms(forwarding->io))
            return -ETIMEDOUT;
        if (undecided && continue_at <= io_now_ms(forwarding->io)) {
            int result = let_body_come(forwarding);
            if (result < 0)
                return -ECANCELED;
            continue;
        }
        int result = client->ops->read_head(client, forwarding->response, why,
                                            undecided ? earlier(deadline, continue_at) : deadline);
        if (result != -ETIMEDOUT)
            return result;
    }
}

/* Hands an interim response on. Returns 0 or a negative errno of the client's side. */
static int relay_interim(struct forwarding *forwarding)
{
    struct response *interim = forwarding->response;
    if (interim->status == 100)
        return let_body_come(forwarding);
    return forwarding->exchange->codec->send_interim(forwarding->exchange, interim->status,
                                                     &interim->headers);
}

/* Removes what is between us and the origin only (RFC 9110 section 7.6.1), so that no layer sees
 * it; Upgrade stays for a 101. */
static void strip_hop_by_hop(struct response *response)
{
    struct headers *headers = &response->headers;
    headers_remove_listed(headers, HEADER_CONNECTION, UINT64_C(1) << HEADER_UPGRADE);
    headers_remove_id(headers, HEADER_CONNECTION);
    headers_remove_id(headers, HEADER_KEEP_ALIVE);
    headers_remove_id(headers, HEADER_PROXY_CONNECTION);
    headers_remove_id(headers, HEADER_TRANSFER_ENCODING);
    headers_remove_id(headers, HEADER_TE);
    if (response->status != 101)
        headers_remove_id(headers, HEADER_UPGRADE);
}

static void log_broken_response(const struct forwarding *forwarding, int error)
{
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("request %llu: the response of peer %s broke off: %s",
                 (unsigned long long)forwarding->request->id, forwarding->entry->peer->text,
                 error == -ECONNRESET ? "closed before its end" : strerror(-error));
}

static int read_body(struct body *body, struct slice *out, unsigned max, int64_t deadline)
{
    struct forwarding *forwarding = body->source;
    struct client_exchange *client = forwarding->client;
    int result = client->ops->read_body(client, body, out, max, deadline);
    if (result < 0 && result != -ECANCELED && deadline != DEADLINE_NOW)
        log_broken_response(forwarding, result);
    return result;
}

/* A response is not spliced as long as its request is sent: if that fails, reading has to end. */
static int splice_body(struct body *body, struct io_pipe **pipe, int64_t deadline)
{
    struct forwarding *forwarding = body->source;
    struct client_exchange *client = forwarding->client;
    if (!client->ops->splice_body || forwarding->upload.active)
        return -EOPNOTSUPP;
    int result = client->ops->splice_body(client, body, pipe, deadline);
    if (result == -ETIMEDOUT)
        log_broken_response(forwarding, result);
    return result;
}

static void release_body(struct body *body)
{
    settle(body->source);
}

static const struct body_ops response_body_ops = {
    .read = read_body,
    .splice = splice_body,
    .release = release_body,
};

static enum outcome accept_upgrade(struct forwarding *forwarding)
{
    if (!forward_wants_upgrade(forwarding->request))
        return fail(forwarding, 502, RESPONSE_MALFORMED, "unasked 101",
                    "the origin switched protocols although nobody asked");
    const struct upstream_config *config = &forwarding->upstream->config;
    upload_join(&forwarding->upload, true);
    struct stream *tunnel = peer_give_away(forwarding->entry->peer, forwarding->client);
    forwarding->client = NULL;
    if (tunnel)
        stream_watch_peer(tunnel, config->keepalive_ms, config->ack_timeout_ms);
    if (tunnel && response_set_tunnel(forwarding->response, tunnel) == 0)
        return DONE;
    if (tunnel)
        stream_abort(tunnel);
    return fail(forwarding, 503, RESPONSE_OVERLOADED, "upgrade", "out of memory");
}

/* The final head has come: the response is ready for the layers. */
static enum outcome accept_response(struct forwarding *forwarding)
{
    struct client_exchange *client = forwarding->client;
    struct response *response = forwarding->response;
    peer_succeeded(forwarding->entry->peer);
    if (response->status >= 500)
        counters_add_upstream(forwarding->entry->peer->counters, UPSTREAM_ERRORS, 1);
    strip_hop_by_hop(response);
    if (response->status == 101)
        return accept_upgrade(forwarding);
    client->ops->begin_body(client, response, &response_body_ops);
    bool reads = response->body.ops == &response_body_ops; /* else all of it is there */
    if (reads)
        response->body.source = forwarding;
    else if (!forwarding->upload.active)
        settle(forwarding);
    return DONE;
}

static enum outcome read_response(struct forwarding *forwarding)
{
    int64_t sent_ms = io_now_ms(forwarding->io);
    const struct client_exchange *client = forwarding->client;
    for (unsigned i = 0; i < INTERIM_MAX; i++) {
        const char *why = "";
        forwarding->response = response_create(forwarding->request, 0);
        int result = forwarding->response ? read_head(forwarding, &why, sent_ms) : -ENOMEM;
        if (forwarding->upload.client_error)
            return fail_client(forwarding, forwarding->upload.client_error);
        if (result == -ECANCELED)
            return CANCELLED;
        if (result == -ETIMEDOUT)
            return fail(forwarding, 504, RESPONSE_TIMED_OUT, "timed out",
                        "no response head in time");
        if (result == -ECONNABORTED)
            return fail(forwarding, 504, RESPONSE_TIMED_OUT, "timed out",
                        "it took no more of the request's body");
        if (result == -EPROTO)
            return fail(forwarding, 502, RESPONSE_MALFORMED, "malformed response", why);
        if (result == -ENOMEM)
            return fail(forwarding, 503, RESPONSE_OVERLOADED, "response head", "out of memory");
        if (result == -ECONNREFUSED)
            return REFUSED;
        if (result < 0)
            return client->reused && !forwarding->force_new && i == 0 && !client->ops->heard(client)
                       ? STALE
                       : NO_ANSWER;
        if (forwarding->response->status >= 200 || forwarding->response->status == 101)
            return accept_response(forwarding);
        result = relay_interim(forwarding);
        if (result < 0)
            return CANCELLED;
    }
    return fail(forwarding, 502, RESPONSE_MALFORMED, "malformed response",
                "too many interim responses");
}

/* --- Attempts --------------------------------------------------------------------------------- */

/* Ends the part of the connection: back to the peer, or closed. Idempotent. */
static void settle(void *arg)
{
    struct forwarding *forwarding = arg;
    struct client_exchange *client = forwarding->client;
    if (!client)
        return;
    struct upload *upload = &forwarding->upload;
    /* All of the body was read and only its last send is under way: worth waiting for. */
    bool nearly_done = client->response_ended && forwarding->request->body.ended;
    upload_join(upload, !nearly_done);
    if (forwarding->exchange->body_user == forwarding)
        forwarding->exchange->body_user = NULL;
    forwarding->client = NULL;
    peer_give_back(forwarding->entry->peer, client, !upload->coro || upload->finished,
                   &forwarding->upstream->config);
    pick_room_freed(forwarding->entry->peer);
}

static int acquire(struct forwarding *forwarding)
{
    const struct upstream_config *config = &forwarding->upstream->config;
    const struct request *request = forwarding->request;
    bool verify = !forward_idempotent(request, config) || !body_is_empty(&request->body);
    int64_t deadline = earlier(io_now_ms(forwarding->io) + config->connect_timeout_ms,
                               forwarding->exchange->total_deadline);
    struct peer_greeting greeting;
    int result = send_proxy_greet(config, request, &greeting);
    if (result < 0)
        return result;
    return peer_acquire(forwarding->entry->peer, config, &greeting, forwarding->force_new, verify,
                        &forwarding->client, deadline);
}

static enum outcome attempt(struct forwarding *forwarding)
{
    struct upload none = {0};
    forwarding->upload = none;
    int result = acquire(forwarding);
    if (result != -EAGAIN)
        counters_add_upstream(forwarding->entry->peer->counters, UPSTREAM_ATTEMPTS, 1);
    if (result < 0) {
        if (result == -ECANCELED)
            return CANCELLED;
        if (result == -EAGAIN)
            return FULL;
        if (result == -EMSGSIZE)
            return fail(forwarding, 502, RESPONSE_CONNECT_FAILED, "connect failed",
                        dial_reason(result));
        if (dial_own_fault(result))
            return fail(forwarding, 503, RESPONSE_OVERLOADED, "connect failed",
                        dial_reason(result));
        fail(forwarding, result == -ETIMEDOUT ? 504 : 502,
             result == -ETIMEDOUT ? RESPONSE_TIMED_OUT : RESPONSE_CONNECT_FAILED, "connect failed",
             dial_reason(result));
        return UNREACHABLE;
    }
    result = send_request(forwarding);
    if (result == -ECANCELED)
        return CANCELLED;
    if (result == -ENOMEM)
        return fail(forwarding, 503, RESPONSE_OVERLOADED, "request", "out of memory");
    if (result == -EMSGSIZE)
        return fail(forwarding, 500, RESPONSE_LAYER_FAILED, "request",
                    "its headers are longer than its transport can carry");
    if (result == -ETIMEDOUT)
        return fail(forwarding, 504, RESPONSE_TIMED_OUT, "timed out",
                    "the origin does not read the request");
    /* A send that failed may still have been answered: reading tells. */
    return read_response(forwarding);
}

/* Is all of the request still at hand? */
static bool can_repeat(const struct forwarding *forwarding)
{
    return (!forwarding->body_begun || forwarding->replayable) && !forwarding->upload.coro;
}

/* May it be sent again, though the origin may have acted on it already? */
static bool may_replay(const struct forwarding *forwarding)
{
    return forward_idempotent(forwarding->request, &forwarding->upstream->config) &&
           can_repeat(forwarding);
}

static bool retries_left(struct forwarding *forwarding)
{
    return forwarding->attempts++ < forwarding->upstream->config.retries;
}

static enum outcome fail_for_room(struct forwarding *forwarding)
{
    return fail(forwarding, 503, RESPONSE_OVERLOADED, "overloaded",
                "no connection became free in time");
}

/* Chooses a peer. Returns DONE when there is one. */
static enum outcome choose(struct forwarding *forwarding)
{
    struct upstream *upstream = forwarding->upstream;
    if (!forwarding->room_deadline)
        forwarding->room_deadline =
            earlier(io_now_ms(forwarding->io) + upstream->config.connect_timeout_ms,
                    forwarding->exchange->total_deadline);
    int index =
        upstream_pick(upstream, forwarding->request, &forwarding->tried, forwarding->room_deadline);
    if (index >= 0) {
        forwarding->entry = &upstream->balancer.peers[index];
        return DONE;
    }
    if (index == -ECANCELED)
        return CANCELLED;
    if (index != PICK_NO_PEER)
        return fail_for_room(forwarding);
    if (!forwarding->response) /* nobody was tried at all */
        fail(forwarding, 503, RESPONSE_NO_PEER, "no peer", "the upstream has no peers");
    return FAILED;
}

/* Has the exchange's own time run out? Then no peer is to blame, and none is tried any more. */
static bool out_of_time(const struct forwarding *forwarding)
{
    return forwarding->exchange->total_deadline <= io_now_ms(forwarding->io);
}

/* What the origin has not looked at may be sent again, whatever it is: to the next peer in turn, on
 * another connection than the one that refused it. */
static bool try_elsewhere(struct forwarding *forwarding)
{
    forwarding->force_new = true;
    if (can_repeat(forwarding) && retries_left(forwarding)) {
        forwarding->entry = NULL;
        return true;
    }
    fail(forwarding, 502, RESPONSE_RESET, "refused", "the origin did not take the request");
    return false;
}

/* Others have taken the room that the peer had, or an idle connection is being closed for us. */
static bool try_for_room(struct forwarding *forwarding)
{
    if (forwarding->room_deadline <= io_now_ms(forwarding->io)) {
        fail_for_room(forwarding);
        return false;
    }
    upstream_await_room(forwarding->upstream);
    forwarding->entry = NULL;
    return true;
}

/* Decides on what follows a failed attempt: true if another one does. */
static bool try_again(struct forwarding *forwarding, enum outcome outcome)
{
    const struct upstream_config *config = &forwarding->upstream->config;
    settle(forwarding);
    if (out_of_time(forwarding)) {
        fail(forwarding, 504, RESPONSE_TIMED_OUT, "timed out", "the request took too long");
        return false;
    }
    if (outcome == STALE) {
        forwarding->force_new = true;
        if (may_replay(forwarding))
            return true;
        fail(forwarding, 502, RESPONSE_RESET, "reset", "the origin closed without an answer");
        return false;
    }
    if (outcome == REFUSED)
        return try_elsewhere(forwarding);
    if (outcome == FULL)
        return try_for_room(forwarding);
    peer_failed(forwarding->entry->peer, config);
    forwarding->force_new = false;
    bool again = (outcome == UNREACHABLE || may_replay(forwarding)) && retries_left(forwarding) &&
                 pick_remember(forwarding->upstream, &forwarding->tried, forwarding->entry,
                               forwarding->request->arena);
    if (outcome == NO_ANSWER)
        fail(forwarding, 502, RESPONSE_RESET, "reset", "the origin closed without an answer");
    if (again)
        forwarding->entry = NULL;
    return again;
}

/* Was it the peer that made the attempt fail, and not the client or ourselves? */
static bool blame_peer(const struct forwarding *forwarding)
{
    const struct response *response = forwarding->response;
    return response && !forwarding->upload.client_error && !out_of_time(forwarding) &&
           (response->error == RESPONSE_TIMED_OUT || response->error == RESPONSE_MALFORMED);
}

static enum outcome run(struct forwarding *forwarding)
{
    for (;;) {
        if (!forwarding->entry) {
            enum outcome chosen = choose(forwarding);
            if (chosen != DONE)
                return chosen;
        }
        unsigned counters = forwarding->entry->peer->counters;
        enum outcome outcome = attempt(forwarding);
        if (outcome == DONE || outcome == CANCELLED)
            return outcome;
        if (outcome != FULL)
            forwarding->room_deadline = 0;
        if (outcome == FAILED && blame_peer(forwarding))
            peer_failed(forwarding->entry->peer, &forwarding->upstream->config);
        if (outcome == FAILED || !try_again(forwarding, outcome))
            return FAILED;
        if (outcome != FULL)
            counters_add_upstream(counters, UPSTREAM_RETRIES, 1);
    }
}

/* What a gateway answers itself (RFC 9110 sections 7.6.2 and 9.3.6). NULL: forward it. */
static struct response *answer_self(struct request *request)
{
    if (request->method == METHOD_CONNECT)
        return response_create_text(request, 405, SLICE("CONNECT is not offered here\n"));
    if (request->method != METHOD_TRACE && request->method != METHOD_OPTIONS)
        return NULL;
    struct slice hops = headers_get(&request->headers, SLICE("max-forwards"));
    if (!hops.ptr)
        return NULL;
    if (slice_equal(hops, SLICE("0")))
        return request->method == METHOD_OPTIONS
                   ? response_create(request, 204)
                   : response_create_text(request, 405, SLICE("TRACE is not offered here\n"));
    unsigned long count = strtoul(hops.ptr, NULL, 10);
    struct slice fewer = arena_printf(request->arena, "%lu", count ? count - 1 : 0);
    if (fewer.ptr)
        headers_set(&request->headers, SLICE("Max-Forwards"), fewer);
    return NULL;
}

/* The body as it was before an earlier forwarding of the same request, if that is possible. */
static bool restore_body(struct request *request)
{
    struct exchange *exchange = request->exchange;
    exchange_reclaim_body(exchange);
    if (body_rewind(&request->body))
        return true;
    if (!request->body.ended || !exchange->sent_body.ptr)
        return false;
    body_release(&request->body);
    body_init_bytes(&request->body, exchange->sent_body);
    return true;
}

/* Calls of Thrift go to its origins, and requests of HTTP to those of HTTP. */
static struct response *refuse_protocol(const struct upstream *upstream, struct request *request)
{
    bool thrift = upstream->config.protocol == UPSTREAM_THRIFT;
    if (thrift == (request->thrift != NULL))
        return NULL;
    struct slice text = arena_printf(
        request->arena, "upstream \"%s\" %s", upstream->config.name,
        thrift ? "speaks Thrift, and this is a request of HTTP"
               : "speaks HTTP, and this is a call of Thrift: give it protocol = \"thrift\"");
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 1, &suppressed))
        log_warn("request %llu: %.*s", (unsigned long long)request->id, (int)text.len, text.ptr);
    return response_create_error(request, 502, RESPONSE_LAYER_FAILED, text);
}

/* A message of Thrift says its length beforehand: a body that a layer makes as it is read is taken
 * whole first. */
static int gather_body(struct request *request, const struct upstream_config *config)
{
    struct slice bytes;
    if (!request->thrift || request->body.length >= 0)
        return 0;
    uint32_t max = config->frame_max_bytes ? config->frame_max_bytes : INT32_MAX;
    int result = thrift_gather(&request->body, request->arena, max, &bytes);
    if (result < 0)
        return result;
    body_release(&request->body);
    body_init_bytes(&request->body, bytes);
    return 0;
}

struct response *upstream_forward(struct upstream *upstream, struct request *request)
{
    struct response *own = answer_self(request);
    if (!own)
        own = refuse_protocol(upstream, request);
    if (own)
        return own;
    if (!restore_body(request))
        return response_create_error(
            request, 502, RESPONSE_LAYER_FAILED,
            SLICE("the request's body was sent on before and is gone: req:body() keeps it"));
    struct forwarding *forwarding = arena_zalloc(request->arena, sizeof(*forwarding));
    /* The clean-up is registered first: a response that a layer throws away settles there. */
    if (!forwarding || arena_defer(request->arena, settle, forwarding) != 0)
        return NULL;
    forwarding->upstream = upstream;
    forwarding->request = request;
    forwarding->exchange = request->exchange;
    forwarding->io = request->exchange->io;
    int gathered = gather_body(request, &upstream->config);
    enum outcome outcome = gathered < 0 ? fail_client(forwarding, gathered) : run(forwarding);
    if (outcome == DONE)
        return forwarding->response;
    settle(forwarding);
    return outcome == CANCELLED ? NULL : forwarding->response;
}
