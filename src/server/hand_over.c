#include "server/hand_over.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "http/connection.h"
#include "net/tunnel.h"
#include "net/tunnel_state.h"
#include "server/tunnel_socket.h"

enum {
    OFFERS_MAX = 16, /* at a time: so nobody waits long for an answer */
    ANSWER_MS = 5000,
    LOOK_EVERY_MS = 100, /* for those whose chain has yet to connect them, and after failures */
};

/* A tunnel on its way. */
struct offer {
    struct tunnel_freeze freeze; /* first */
    struct list link;
    struct hand_over *over;
    struct connection *connection;
    struct tunnel *tunnel; /* NULL: it has been decided on; only the channel is left to close */
    int channel;           /* -1: none yet */
    struct io_op answer;   /* poll of the channel */
    struct timer late;
};

static void look_at(struct hand_over *over, int64_t delay_ms)
{
    if (over->socket >= 0)
        timer_start(io_timers(over->io), &over->look, io_now_ms(over->io) + delay_ms);
}

/* --- The end of an offer ---------------------------------------------------------------------- */

static void free_offer(struct offer *offer)
{
    struct hand_over *over = offer->over;
    if (offer->channel >= 0)
        io_close_fd(over->io, offer->channel);
    list_remove(&offer->link);
    over->offer_count--;
    free(offer);
    look_at(over, 0);
}

/* The tunnel is no longer the offer's. */
static void forget(struct offer *offer)
{
    timer_stop(&offer->late);
    offer->tunnel = NULL;
    if (io_op_in_flight(&offer->answer))
        io_cancel(offer->over->io, &offer->answer);
    else
        free_offer(offer);
}

static void keep(struct offer *offer, const char *why)
{
    static struct log_limit limit;
    uint32_t suppressed;
    struct tunnel *tunnel = offer->tunnel;
    if (log_limit_pass(&limit, 1, &suppressed))
        log_warn("a tunnel stays in this program: %s (%u more were not logged)", why, suppressed);
    offer->connection->stays = true;
    forget(offer);
    tunnel_thaw(tunnel);
}

static void over_before(struct tunnel_freeze *freeze)
{
    forget((struct offer *)freeze);
}

/* Whose turn would be next shall not wait for nothing, too: one is tried. */
static void late(struct timer *timer)
{
    struct offer *offer = timer->owner;
    offer->over->at_once = 1;
    keep(offer, "the new one did not answer in time");
}

static void answered(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    (void)result; /* of the poll; the channel tells */
    struct offer *offer = op->owner;
    struct tunnel_state state;
    struct tunnel *tunnel = offer->tunnel;
    if (!tunnel) {
        free_offer(offer);
        return;
    }
    if (tunnel_socket_hear(offer->channel) != TUNNEL_TAKEN)
        keep(offer, "the new one has refused it");
    else if (offer->connection->protocol->moves(offer->connection, &state) != tunnel)
        keep(offer, "a function of on_close was set meanwhile");
    else if (tunnel_socket_say(offer->channel, TUNNEL_YOURS) != 0)
        keep(offer, "the new one is gone");
    else {
        offer->over->moved++;
        offer->over->at_once = OFFERS_MAX;
        forget(offer);
        tunnel_leave(tunnel);
    }
}

/* --- Offering --------------------------------------------------------------------------------- */

static int pack(struct offer *offer, struct offer_fds *fds, char bytes[TUNNEL_STATE_MAX_BYTES])
{
    struct tunnel_state state = {.log_count = 0};
    const struct connection *connection = offer->connection;
    const struct acceptor *acceptor = container_of(connection->listener, struct acceptor, server);
    if (connection->protocol->moves(offer->connection, &state) != offer->tunnel)
        return -ECANCELED;
    state.listener = slice_from_cstr(acceptor->key);
    tunnel_describe(offer->tunnel, &state, &fds->client, &fds->peer);
    if (state.client_pending || state.peer_pending) {
        fds->pending = tunnel_write_pending(offer->tunnel);
        if (fds->pending < 0)
            return fds->pending;
    }
    return tunnel_state_write(&state, bytes);
}

/* Returns 0 or a negative errno. */
static int send_offer(struct offer *offer)
{
    static char bytes[TUNNEL_STATE_MAX_BYTES];
    struct offer_fds fds = {-1, -1, -1, -1};
    int sockets[2];
    int result = tunnel_socket_pair(sockets);
    if (result < 0)
        return result;
    offer->channel = sockets[0];
    fds.channel = sockets[1];
    result = pack(offer, &fds, bytes);
    if (result >= 0)
        result = tunnel_socket_offer(offer->over->socket, slice_of(bytes, (size_t)result), &fds);
    fds.client = fds.peer = -1; /* the tunnel's */
    offer_fds_close(&fds);
    return result;
}

static void await_answer(struct offer *offer)
{
    struct io *io = offer->over->io;
    offer->answer = (struct io_op){.kind = IO_OP_POLL,
                                   .fd = offer->channel,
                                   .events = POLLIN,
                                   .done = answered,
                                   .owner = offer};
    io_submit(io, &offer->answer);
    timer_start(io_timers(io), &offer->late, io_now_ms(io) + offer->over->answer_ms);
}

/* A socket that is full for the moment is no reason to give up. */
static void not_sent(struct offer *offer, int error)
{
    struct hand_over *over = offer->over;
    struct tunnel *tunnel = offer->tunnel;
    if (error != -EAGAIN && error != -ETOOMANYREFS && error != -ENOBUFS) {
        keep(offer, strerror(-error));
        return;
    }
    forget(offer);
    tunnel_thaw(tunnel);
    look_at(over, LOOK_EVERY_MS);
}

static void frozen(struct tunnel_freeze *freeze)
{
    struct offer *offer = (struct offer *)freeze;
    int result = offer->over->socket < 0 ? -EPIPE : send_offer(offer);
    if (result < 0)
        not_sent(offer, result);
    else
        await_answer(offer);
}

static bool begin_offer(struct hand_over *over, struct connection *connection,
                        struct tunnel *tunnel)
{
    struct offer *offer = calloc(1, sizeof(*offer));
    if (!offer)
        return false;
    *offer = (struct offer){
        .freeze = {.frozen = frozen, .over = over_before},
        .over = over,
        .connection = connection,
        .tunnel = tunnel,
        .channel = -1,
    };
    timer_init(&offer->late, late, offer);
    list_push_back(&over->offers, &offer->link);
    over->offer_count++;
    if (tunnel_freeze(tunnel, &offer->freeze))
        return true;
    list_remove(&offer->link);
    over->offer_count--;
    free(offer);
    return false;
}

/* --- Looking for tunnels ---------------------------------------------------------------------- */

static struct tunnel *ready(struct connection *connection)
{
    struct tunnel_state state;
    if (connection->stays || !connection->protocol->moves)
        return NULL;
    struct tunnel *tunnel = connection->protocol->moves(connection, &state);
    return tunnel && tunnel_movable(tunnel) ? tunnel : NULL;
}

/* False: there may be more. */
static bool offer_those_of(struct hand_over *over, struct http_server *server)
{
    list_for_each(node, &server->connections)
    {
        struct connection *connection = container_of(node, struct connection, link);
        if (over->offer_count >= over->at_once)
            return false;
        struct tunnel *tunnel = ready(connection);
        if (tunnel && !begin_offer(over, connection, tunnel))
            return false;
    }
    return true;
}

static void tell(struct hand_over *over)
{
    if (over->moved == over->told)
        return;
    log_info("%u tunnels have moved to the new program", over->moved - over->told);
    over->told = over->moved;
}

static void look(struct timer *timer)
{
    struct hand_over *over = timer->owner;
    bool all = true;
    list_for_each(node, &over->acceptors->list) all =
        all && offer_those_of(over, &container_of(node, struct acceptor, link)->server);
    over->waiting = !all;
    if (all && !over->offer_count)
        tell(over);
    look_at(over, LOOK_EVERY_MS);
}

/* --- Life ------------------------------------------------------------------------------------- */

void hand_over_init(struct hand_over *over, struct io *io, struct acceptors *acceptors)
{
    *over = (struct hand_over){.io = io,
                               .acceptors = acceptors,
                               .socket = -1,
                               .answer_ms = ANSWER_MS,
                               .at_once = OFFERS_MAX};
    timer_init(&over->look, look, over);
    list_init(&over->offers);
}

void hand_over_begin(struct hand_over *over, int socket)
{
    over->socket = socket;
    over->begun_ms = io_now_ms(over->io);
    over->waiting = true;
    look_at(over, 0);
}

void hand_over_stop(struct hand_over *over)
{
    timer_stop(&over->look);
    tell(over);
    if (over->socket >= 0)
        io_close_fd(over->io, over->socket);
    over->socket = -1;
}

bool hand_over_goes_on(const struct hand_over *over)
{
    return over->socket >= 0 && (over->waiting || over->offer_count) &&
           io_now_ms(over->io) - over->begun_ms < HAND_OVER_MAX_MS;
}

bool hand_over_busy(const struct hand_over *over)
{
    return over->offer_count != 0;
}
