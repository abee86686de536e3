#include "net/tunnel_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/counters.h"

const char *tunnel_reason_name(enum tunnel_reason reason)
{
    static const char *const names[] = {
        [TUNNEL_ENDED] = "ended",
        [TUNNEL_IDLE] = "idle_timeout",
        [TUNNEL_DEADLINE] = "total_timeout",
        [TUNNEL_CLIENT_FAILED] = "client_failed",
        [TUNNEL_PEER_FAILED] = "peer_failed",
        [TUNNEL_CANCELLED] = "cancelled",
        [TUNNEL_LEFT] = "moved",
    };
    return names[reason];
}

static bool busy(const struct direction *direction)
{
    return direction->send || tunnel_splice_busy(direction);
}

/* Closes both streams once no send refers to their buffers any more. A failed side makes the other
 * one end with a reset: its peer must not take a cut for an end. */
static void finish(struct timer *timer)
{
    struct tunnel *tunnel = timer->owner;
    if (busy(&tunnel->out) || busy(&tunnel->back))
        return;
    struct stream *client = tunnel->out.from;
    struct stream *peer = tunnel->out.to;
    enum tunnel_reason reason = tunnel->result.reason;
    tunnel_splice_free(&tunnel->out);
    tunnel_splice_free(&tunnel->back);
    tunnel->result.client_bytes = tunnel->out.bytes;
    tunnel->result.peer_bytes = tunnel->back.bytes;
    if (tunnel->done)
        tunnel->done(&tunnel->result, tunnel->owner);
    free(tunnel);
    counters_add(COUNTER_TUNNELS_OPEN, -1);
    client->tunnel = peer->tunnel = NULL;
    void (*close_stream)(struct stream * stream) = reason == TUNNEL_ENDED  ? stream_close
                                                   : reason == TUNNEL_LEFT ? stream_leave
                                                                           : stream_abort;
    close_stream(client);
    close_stream(peer);
}

/* At the next turn, so that nobody's tunnel is freed under his feet. */
static void finish_soon(struct tunnel *tunnel)
{
    timer_stop(&tunnel->timer);
    timer_init(&tunnel->timer, finish, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, io_now_ms(tunnel->io));
}

static void stop(struct direction *direction)
{
    direction->from->on_arrival = NULL;
    if (direction->send)
        stream_write_cancel(&direction->send->write);
    tunnel_splice_cancel(direction);
}

void tunnel_end(struct tunnel *tunnel, enum tunnel_reason reason, int error)
{
    struct tunnel_freeze *freeze = tunnel->freeze;
    if (tunnel->ending)
        return;
    tunnel->ending = true;
    tunnel->freeze = NULL;
    tunnel->result.reason = tunnel->borrowed ? TUNNEL_LEFT : reason;
    tunnel->result.error = error;
    stop(&tunnel->out);
    stop(&tunnel->back);
    finish_soon(tunnel);
    if (freeze)
        freeze->over(freeze);
}

bool tunnel_ending(struct tunnel *tunnel)
{
    if (tunnel->ending)
        finish_soon(tunnel);
    return tunnel->ending;
}

void tunnel_fail(struct direction *direction, const struct stream *failed, int error)
{
    struct tunnel *tunnel = direction->tunnel;
    tunnel_end(tunnel, failed == tunnel->out.from ? TUNNEL_CLIENT_FAILED : TUNNEL_PEER_FAILED,
               error);
}

void tunnel_moved(struct tunnel *tunnel)
{
    tunnel->moved_ms = io_now_ms(tunnel->io);
}

static void check_time(struct timer *timer);

/* How long nothing may move: 0 for any time. */
static uint32_t idle_max_ms(const struct tunnel *tunnel)
{
    const struct tunnel_options *options = &tunnel->options;
    bool half_closed = tunnel->out.shut || tunnel->back.shut;
    return half_closed && options->half_closed_timeout_ms ? options->half_closed_timeout_ms
                                                          : options->idle_timeout_ms;
}

static int64_t next_check(const struct tunnel *tunnel)
{
    uint32_t idle_ms = idle_max_ms(tunnel);
    int64_t idle_at = idle_ms ? tunnel->moved_ms + idle_ms : DEADLINE_NEVER;
    return idle_at < tunnel->options.deadline ? idle_at : tunnel->options.deadline;
}

/* Carries the end of one side over to the other. */
static void carry_end(struct direction *direction)
{
    struct tunnel *tunnel = direction->tunnel;
    if (direction->from->end < 0) {
        tunnel_fail(direction, direction->from, direction->from->end);
        return;
    }
    if (direction->shut)
        return;
    direction->shut = true;
    stream_shutdown(direction->to);
    if (tunnel->out.shut && tunnel->back.shut)
        tunnel_end(tunnel, TUNNEL_ENDED, 0);
    else if (tunnel->begun)
        timer_start(io_timers(tunnel->io), &tunnel->timer, next_check(tunnel));
}

/* Nothing is queued: splices as soon as nothing is being received either, which is an arrival. */
static void turn_to_splice(struct direction *direction)
{
    if (io_op_in_flight(&direction->from->recv))
        return;
    if (tunnel_splice_start(direction) < 0) {
        direction->streak_bytes = 0;
        stream_resume(direction->from);
    }
}

void tunnel_pump(struct direction *direction)
{
    struct stream *from = direction->from;
    if (direction->tunnel->freeze && !direction->tunnel->ending) {
        tunnel_settle(direction->tunnel);
        return;
    }
    if (direction->send || direction->splice || direction->tunnel->ending)
        return; /* what has arrived waits until the other side has taken what is on its way */
    int result = tunnel_copy(direction);
    if (result < 0) {
        tunnel_fail(direction, direction->to, result);
        return;
    }
    if (!from->paused && from->end == STREAM_OPEN && tunnel_splice_pays(direction))
        stream_pause(from);
    if (result > 0)
        return;
    if (from->end != STREAM_OPEN)
        carry_end(direction);
    else if (from->paused)
        turn_to_splice(direction);
}

static void arrival(struct tunnel *tunnel, struct direction *direction)
{
    if (direction->from->first || direction->from->end != STREAM_OPEN)
        tunnel_moved(tunnel); /* else it is the end of a receive that was stopped */
    if (direction->from->end < 0 && direction->send) /* which may never end */
        tunnel_fail(direction, direction->from, direction->from->end);
    else
        tunnel_pump(direction);
}

static void client_arrival(struct stream *stream)
{
    struct tunnel *tunnel = stream->tunnel;
    arrival(tunnel, &tunnel->out);
}

static void peer_arrival(struct stream *stream)
{
    struct tunnel *tunnel = stream->tunnel;
    arrival(tunnel, &tunnel->back);
}

/* A slow reader is not a dead one: while a send waits, what TCP has acknowledged counts. */
static bool taken_slowly(struct tunnel *tunnel)
{
    uint64_t acknowledged =
        stream_bytes_acknowledged(tunnel->out.from) + stream_bytes_acknowledged(tunnel->out.to);
    bool more = acknowledged != tunnel->acknowledged;
    tunnel->acknowledged = acknowledged;
    return more && (tunnel->out.send || tunnel->back.send);
}

static void check_time(struct timer *timer)
{
    struct tunnel *tunnel = timer->owner;
    int64_t now = io_now_ms(tunnel->io);
    bool idle = now >= next_check(tunnel);
    if (now >= tunnel->options.deadline) {
        tunnel_end(tunnel, TUNNEL_DEADLINE, -ETIMEDOUT);
        return;
    }
    if (idle && !taken_slowly(tunnel)) {
        tunnel_end(tunnel, TUNNEL_IDLE, -ETIMEDOUT);
        return;
    }
    if (idle)
        tunnel_moved(tunnel);
    timer_start(io_timers(tunnel->io), timer, next_check(tunnel));
}

void tunnel_go_on(struct tunnel *tunnel)
{
    tunnel->begun = true;
    timer_init(&tunnel->timer, check_time, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, next_check(tunnel));
    tunnel_pump(&tunnel->out);
    tunnel_pump(&tunnel->back);
}

static void begin(struct timer *timer)
{
    tunnel_go_on(timer->owner);
}

void tunnel_attach(struct tunnel *tunnel)
{
    counters_add(COUNTER_TUNNELS_OPEN, 1);
    struct stream *client = tunnel->out.from;
    struct stream *peer = tunnel->out.to;
    client->tunnel = peer->tunnel = tunnel;
    client->on_arrival = client_arrival;
    peer->on_arrival = peer_arrival;
    client->watch_hangup = peer->watch_hangup = true;
}

struct tunnel *tunnel_start(struct stream *client, struct stream *peer,
                            const struct tunnel_options *options,
                            void (*done)(const struct tunnel_result *result, void *owner),
                            void *owner)
{
    struct tunnel *tunnel = calloc(1, sizeof(*tunnel));
    if (!tunnel)
        return NULL;
    *tunnel = (struct tunnel){
        .io = client->io,
        .out = {.tunnel = tunnel, .from = client, .to = peer},
        .back = {.tunnel = tunnel, .from = peer, .to = client},
        .options = *options,
        .moved_ms = io_now_ms(client->io),
        .done = done,
        .owner = owner,
    };
    counters_add(COUNTER_TUNNELS, 1);
    tunnel_attach(tunnel);
    /* What is queued already moves at the next turn, when the caller is done with the streams. */
    timer_init(&tunnel->timer, begin, tunnel);
    timer_start(io_timers(tunnel->io), &tunnel->timer, io_now_ms(tunnel->io));
    return tunnel;
}

void tunnel_cancel(struct tunnel *tunnel)
{
    tunnel_end(tunnel, TUNNEL_CANCELLED, -ECANCELED);
}
