#include "server/adopt.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "http/connection.h"
#include "http/tunnel_note.h"
#include "l4/conn.h"
#include "net/tunnel.h"
#include "net/tunnel_state.h"
#include "proxy/access_log.h"
#include "proxy/peer.h"
#include "server/tunnel_socket.h"

enum { OFFERS_AT_ONCE = 8 }; /* the rest is left to other workers */

/* A tunnel that is ready to be gone on with. */
struct adoption {
    struct tunnel_freeze freeze; /* first */
    struct adopters *adopters;
    struct tunnel *tunnel; /* NULL: it has been decided on; only the channel is left to close */
    int channel;
    struct io_op word; /* poll of the channel */
};

static void await_offers(struct adopters *adopters);

/* --- The end of an adoption ------------------------------------------------------------------- */

static void free_adoption(struct adoption *adoption)
{
    struct adopters *adopters = adoption->adopters;
    io_close_fd(adopters->io, adoption->channel);
    adopters->count--;
    free(adoption);
}

static void over_before(struct tunnel_freeze *freeze)
{
    struct adoption *adoption = (struct adoption *)freeze;
    adoption->tunnel = NULL;
    if (io_op_in_flight(&adoption->word))
        io_cancel(adoption->adopters->io, &adoption->word);
}

static void heard(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)result; /* of the poll; the channel tells */
    (void)buf;
    (void)more;
    struct adoption *adoption = op->owner;
    struct tunnel *tunnel = adoption->tunnel;
    if (tunnel && tunnel_socket_hear(adoption->channel) == TUNNEL_YOURS)
        tunnel_thaw(tunnel);
    else if (tunnel)
        tunnel_leave(tunnel);
    free_adoption(adoption);
}

/* --- An offer --------------------------------------------------------------------------------- */

/* Is the file, if there is to be one, of the size that the message says? */
static bool right_file(const struct tunnel_state *state, int file)
{
    struct stat status;
    uint64_t expected = (uint64_t)state->client_pending + state->peer_pending;
    if (file < 0 || !expected)
        return file < 0 && !expected;
    return fstat(file, &status) == 0 && (uint64_t)status.st_size == expected;
}

/* Both streams, the second in *peer; what it takes over of the descriptors becomes -1. */
static struct connection *make_streams(struct acceptor *acceptor, const struct tunnel_state *state,
                                       struct offer_fds *fds, struct stream **peer)
{
    struct connection *connection = http_server_adopt(&acceptor->server, fds->client,
                                                      &state->client_remote, &state->client_local);
    if (!connection)
        return NULL;
    fds->client = -1;
    *peer = peer_adopt_stream(acceptor->all->io, fds->peer, &state->peer_remote);
    if (*peer)
        fds->peer = -1;
    return connection;
}

static struct tunnel *adopt_connection(struct connection *connection, struct stream *peer,
                                       const struct tunnel_state *state,
                                       struct tunnel_freeze *freeze)
{
    struct tunnel_note *notes;
    if (state->kind == TUNNEL_OF_LAYER4)
        return l4_connection_adopt(connection, peer, state, freeze);
    if (!access_log_adopt(connection->server->io, state, &notes))
        return NULL;
    struct tunnel *tunnel = h1_connection_adopt(connection, peer, state, freeze, notes);
    if (!tunnel)
        tunnel_notes_end(notes, &(struct tunnel_result){.reason = TUNNEL_LEFT});
    return tunnel;
}

/* A tunnel in which nothing is missing but the word to begin, or NULL. */
static struct tunnel *make_tunnel(struct adoption *adoption, struct acceptor *acceptor,
                                  const struct tunnel_state *state, struct offer_fds *fds)
{
    struct stream *peer = NULL;
    struct connection *connection = make_streams(acceptor, state, fds, &peer);
    if (!connection)
        return NULL;
    struct tunnel *tunnel =
        peer ? adopt_connection(connection, peer, state, &adoption->freeze) : NULL;
    if (!tunnel) {
        stream_leave(&connection->stream);
        if (peer)
            stream_leave(peer);
        return NULL;
    }
    if (fds->pending < 0 || tunnel_read_pending(tunnel, state, fds->pending) == 0)
        return tunnel;
    tunnel_leave(tunnel);
    return NULL;
}

static void await_word(struct adoption *adoption)
{
    adoption->word = (struct io_op){.kind = IO_OP_POLL,
                                    .fd = adoption->channel,
                                    .events = POLLIN,
                                    .done = heard,
                                    .owner = adoption};
    io_submit(adoption->adopters->io, &adoption->word);
}

static struct acceptor *find(struct adopters *adopters, struct slice listener)
{
    char key[256];
    if (listener.len >= sizeof(key))
        return NULL;
    memcpy(key, listener.ptr, listener.len);
    key[listener.len] = '\0';
    struct acceptor *acceptor = acceptors_find(adopters->acceptors, key);
    return acceptor && acceptor->server.service ? acceptor : NULL;
}

/* Returns NULL: it is under way; or why it is refused. */
static const char *adopt(struct adopters *adopters, const struct tunnel_state *state,
                         struct offer_fds *fds)
{
    struct acceptor *acceptor = find(adopters, state->listener);
    if (!right_file(state, fds->pending))
        return "the bytes on their way are not as many as it says";
    if (!acceptor)
        return "the site does not listen there any more";
    if (!acceptor_has_room(acceptor))
        return "too many connections are open (raise the limit of open files: ulimit -n, "
               "LimitNOFILE=)";
    struct adoption *adoption = calloc(1, sizeof(*adoption));
    if (!adoption)
        return "out of memory";
    *adoption = (struct adoption){
        .freeze = {.over = over_before}, .adopters = adopters, .channel = fds->channel};
    adoption->tunnel = make_tunnel(adoption, acceptor, state, fds);
    if (!adoption->tunnel) {
        free(adoption);
        return "out of memory, or an access log that it is to be noted in cannot be opened";
    }
    fds->channel = -1;
    adopters->count++;
    await_word(adoption);
    tunnel_socket_say(adoption->channel, TUNNEL_TAKEN); /* if nobody hears it, the poll ends */
    return NULL;
}

static void take_offer(struct adopters *adopters, struct slice message, struct offer_fds *fds)
{
    static struct log_limit limit;
    uint32_t suppressed;
    struct tunnel_state state;
    const char *why;
    if (tunnel_state_parse(message, &state, &why) == 0)
        why = adopt(adopters, &state, fds);
    offer_fds_close(fds); /* those that were not taken over */
    if (why && log_limit_pass(&limit, 1, &suppressed))
        log_warn("a tunnel of the program before this one is refused: %s (%u more were not logged)",
                 why, suppressed);
}

/* --- Life ------------------------------------------------------------------------------------- */

static void close_socket(struct adopters *adopters)
{
    io_close_fd(adopters->io, adopters->socket);
    adopters->socket = -1;
}

static void readable(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    static char bytes[TUNNEL_STATE_MAX_BYTES];
    (void)result;
    (void)buf;
    (void)more;
    struct adopters *adopters = op->owner;
    struct offer_fds fds;
    int got = -EAGAIN;
    for (unsigned i = 0; i < OFFERS_AT_ONCE && adopters->socket >= 0; i++) {
        got = tunnel_socket_receive(adopters->socket, bytes, sizeof(bytes), &fds);
        if (got > 0)
            take_offer(adopters, slice_of(bytes, (size_t)got), &fds);
        else if (got != -EPROTO)
            break;
    }
    if (adopters->socket < 0)
        return;
    if (got == 0 || (got < 0 && got != -EAGAIN && got != -EPROTO))
        close_socket(adopters); /* all old workers are gone */
    else
        await_offers(adopters);
}

static void await_offers(struct adopters *adopters)
{
    adopters->poll = (struct io_op){.kind = IO_OP_POLL,
                                    .fd = adopters->socket,
                                    .events = POLLIN,
                                    .done = readable,
                                    .owner = adopters};
    io_submit(adopters->io, &adopters->poll);
}

void adopters_init(struct adopters *adopters, struct io *io, struct acceptors *acceptors,
                   int socket)
{
    *adopters = (struct adopters){.io = io, .acceptors = acceptors, .socket = socket};
    if (socket >= 0)
        await_offers(adopters);
}

void adopters_stop(struct adopters *adopters)
{
    if (adopters->socket < 0)
        return;
    if (io_op_in_flight(&adopters->poll))
        io_cancel(adopters->io, &adopters->poll);
    close_socket(adopters);
}

bool adopters_busy(const struct adopters *adopters)
{
    return adopters->count != 0;
}
