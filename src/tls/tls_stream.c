#include "tls/tls_stream.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "coro/coro.h"

enum {
    /* The first record behind a pause fits into the first flight of a new connection (10 segments),
     * so that its reader need not wait for an acknowledgement to decrypt it. */
    FIRST_RECORD_BYTES = 4096,
    PAUSE_MS = 1000,
    SEAL_MAX_BYTES = 4 * TLS_RECORD_MAX_BYTES, /* of plaintext in one send */
    GATHERED_BYTES = TLS_RECORD_MAX_BYTES,     /* pieces smaller than that share a record */
    OUTPUT_MAX_BYTES = 65536, /* of replies that a peer provokes and does not read */
};

struct tls_stream {
    struct tls_session session;
    struct stream *stream;
    struct tls_output sealed; /* being sent: what comes meanwhile must not move it */
    int64_t sealed_ms;        /* when something was last sealed */
    bool ended;               /* close_notify has come */
};

static void received(struct stream *stream, struct io_buf *buf);
static int ended(struct stream *stream);
static int seal(struct stream *stream, struct stream_write *write, struct iovec *sealed);
static void sent(struct stream *stream);
static void shut(struct stream *stream);
static void closed(struct stream *stream);

static const struct stream_filter tls_filter = {
    .received = received,
    .ended = ended,
    .seal = seal,
    .sent = sent,
    .shut = shut,
    .closed = closed,
};

/* --- Handshake -------------------------------------------------------------------------------- */

static int send_output(struct stream *stream, struct tls_session *session, int64_t deadline)
{
    if (!session->output.len)
        return 0;
    struct iovec iov = {session->output.bytes, session->output.len};
    int result = stream_send(stream, &iov, 1, deadline);
    tls_output_release(&session->output);
    return result;
}

/* One call of the library, with what has arrived; on the main stack, since nobody promises how much
 * of it their arithmetic needs. */
struct step {
    struct stream *stream;
    struct tls_session *session;
    int result;
};

static void step_on_main(void *arg)
{
    struct step *step = arg;
    struct tls_session *session = step->session;
    struct io_buf *buf = step->stream->first;
    session->input = buf ? slice_of(buf->data, buf->len) : (struct slice){NULL, 0};
    step->result = tls_handshake(session);
    uint32_t consumed = buf ? buf->len - (uint32_t)session->input.len : 0;
    if (consumed)
        stream_consume(step->stream, consumed);
    else if (buf && step->result == -EAGAIN)
        step->result = -EPROTO; /* it would never go on */
    session->input = (struct slice){NULL, 0};
}

static int take_step(struct stream *stream, struct tls_session *session)
{
    struct step step = {stream, session, 0};
    coro_on_main(step_on_main, &step);
    return step.result;
}

static int ask(struct tls_session *session, struct tls_hello_hook *hook, int64_t deadline)
{
    struct tls_certificate *certificate = NULL;
    assert(hook); /* a server asks only if there is somebody to answer */
    int result = hook->answer(hook, session->hello, &certificate, deadline);
    if (result == -EACCES)
        tls_refuse_hello(session);
    else if (result == 0)
        tls_answer_hello(session, certificate);
    if (certificate)
        tls_certificate_release(certificate);
    return result == -EACCES ? 0 : result;
}

/* Does the peer wait for what is in the output at the end? Only for the last flight of a TLS 1.2
 * server. All else goes along with the first bytes of the application: a client's last message with
 * its request, a server's tickets with its response. */
static bool peer_waits(const struct tls_session *session)
{
    struct tls_info info;
    if (!session->server || !session->output.len)
        return false;
    tls_describe(session, &info);
    return strcmp(info.version, "TLSv1.2") == 0;
}

static int shake_hands(struct stream *stream, struct tls_session *session,
                       struct tls_hello_hook *hook, int64_t deadline)
{
    for (;;) {
        int result = take_step(stream, session);
        if (result == 0)
            return peer_waits(session) ? send_output(stream, session, deadline) : 0;
        int sent_result = send_output(stream, session, deadline);
        bool waits = result == -EAGAIN && !stream->first;
        if (result == TLS_HELLO)
            result = ask(session, hook, deadline);
        if (result < 0 && result != -EAGAIN)
            return result;
        if (sent_result < 0)
            return sent_result;
        if (!waits)
            continue;
        result = stream_wait_readable(stream, deadline);
        if (result <= 0)
            return result < 0 ? result : -ECONNRESET;
    }
}

/* On the main stack as well: decrypts what has come behind the handshake. */
static void put_on_stream(void *arg)
{
    struct tls_stream *tls = arg;
    stream_set_filter(tls->stream, &tls_filter, tls);
}

static int begin(struct stream *stream, struct tls_stream *tls, struct tls_hello_hook *hook,
                 char *error, int64_t deadline)
{
    int result = shake_hands(stream, &tls->session, hook, deadline);
    snprintf(error, TLS_ERROR_MAX_BYTES, "%s",
             tls->session.error ? tls->session.error : strerror(-result));
    if (result < 0) {
        tls_end(&tls->session);
        free(tls);
        return result;
    }
    tls->stream = stream;
    coro_on_main(put_on_stream, tls);
    return 0;
}

static int without_memory(struct tls_stream *tls, char *error)
{
    free(tls);
    snprintf(error, TLS_ERROR_MAX_BYTES, "out of memory");
    return -ENOMEM;
}

int tls_stream_accept(struct stream *stream, struct tls_server *server, struct tls_hello_hook *hook,
                      char *error, int64_t deadline)
{
    struct tls_stream *tls = calloc(1, sizeof(*tls));
    if (!tls || tls_accept(&tls->session, server) != 0)
        return without_memory(tls, error);
    return begin(stream, tls, hook, error, deadline);
}

int tls_stream_connect(struct stream *stream, struct tls_client *client, const char *name,
                       struct tls_memory *memory, char *error, int64_t deadline)
{
    struct tls_stream *tls = calloc(1, sizeof(*tls));
    if (!tls || tls_connect(&tls->session, client, name, memory) != 0)
        return without_memory(tls, error);
    return begin(stream, tls, NULL, error, deadline);
}

const struct tls_session *tls_stream_session(const struct stream *stream)
{
    return stream->filter == &tls_filter ? &((struct tls_stream *)stream->filter_state)->session
                                         : NULL;
}

/* --- Receiving -------------------------------------------------------------------------------- */

static void flushed(struct stream_write *write, int result)
{
    (void)result; /* a connection that takes nothing fails whoever uses it */
    free(write);
}

/* Sends what the library has said by itself, unless a send is under way, which takes it along; so
 * does the next one if there is no memory. */
static void flush(struct stream *stream)
{
    struct tls_stream *tls = stream->filter_state;
    if (!tls->session.output.len || stream->write || stream->closing)
        return;
    struct stream_write *write = malloc(sizeof(*write));
    if (!write)
        return;
    *write = (struct stream_write){.done = flushed, .background = true};
    if (stream_write_start(stream, write) != 0)
        free(write);
}

void tls_stream_flush(struct stream *stream)
{
    if (stream->filter == &tls_filter)
        flush(stream);
}

/* Decrypts what is there into buffers for the reader. Returns what tls_read gave last. */
static ssize_t decrypt(struct stream *stream, struct tls_session *session)
{
    static char spare[TLS_RECORD_MAX_BYTES]; /* while the pool is at its bound */
    for (;;) {
        struct io_buf *buf = io_buf_take(stream->io);
        char *bytes = buf ? buf->data : spare;
        size_t size = buf ? io_buf_bytes(stream->io) : sizeof(spare);
        size_t used = 0;
        ssize_t count = 0;
        while (used < size && (count = tls_read(session, bytes + used, size - used)) > 0)
            used += (size_t)count;
        if (!buf && used)
            buf = io_buf_copy(spare, (uint32_t)used);
        if (used && !buf)
            return -ENOMEM;
        if (buf)
            buf->len = (uint32_t)used;
        if (used)
            stream_deliver(stream, buf);
        else if (buf)
            io_buf_release(stream->io, buf);
        if (count <= 0)
            return count;
    }
}

static void received(struct stream *stream, struct io_buf *buf)
{
    struct tls_stream *tls = stream->filter_state;
    struct tls_session *session = &tls->session;
    if (tls->ended || stream->end != STREAM_OPEN) {
        io_buf_release(stream->io, buf);
        return;
    }
    session->input = slice_of(buf->data, buf->len);
    size_t output_before = session->output.len;
    ssize_t result = decrypt(stream, session);
    session->input = (struct slice){NULL, 0};
    io_buf_release(stream->io, buf);
    if (session->output.len > output_before)
        flush(stream);
    if (result == 0) {
        tls->ended = true;
        stream_fail(stream, STREAM_EOF);
    } else if (result != -EAGAIN) {
        stream_fail(stream, (int)result);
    } else if (session->output.len > OUTPUT_MAX_BYTES) {
        stream_fail(stream, -EPROTO);
    }
}

/* An end without close_notify is a truncation (RFC 8446, 6.1). */
static int ended(struct stream *stream)
{
    const struct tls_stream *tls = stream->filter_state;
    return tls->ended ? STREAM_EOF : -ECONNRESET;
}

/* --- Sending ---------------------------------------------------------------------------------- */

static size_t left_of(const struct stream_write *write)
{
    size_t left = 0;
    for (unsigned i = 0; i < write->count; i++)
        left += write->iov[i].iov_len;
    return left;
}

static void advance(struct stream_write *write, size_t count)
{
    write->taken += count;
    while (write->count && count >= write->iov->iov_len) {
        count -= write->iov->iov_len;
        write->iov++;
        write->count--;
    }
    if (count) {
        write->iov->iov_base = (char *)write->iov->iov_base + count;
        write->iov->iov_len -= count;
    }
}

/* The next bytes of a write in one piece, at most `max`: small pieces are gathered, so that a head
 * and its body share a record. */
static struct slice next_plaintext(struct stream_write *write, size_t max)
{
    static char gathered[GATHERED_BYTES];
    size_t used = 0;
    if (write->iov->iov_len >= max || write->count == 1)
        return slice_of(write->iov->iov_base,
                        write->iov->iov_len < max ? write->iov->iov_len : max);
    for (unsigned i = 0; i < write->count && used < max; i++) {
        size_t count = write->iov[i].iov_len < max - used ? write->iov[i].iov_len : max - used;
        memcpy(gathered + used, write->iov[i].iov_base, count);
        used += count;
    }
    return slice_of(gathered, used);
}

static int seal(struct stream *stream, struct stream_write *write, struct iovec *sealed)
{
    struct tls_stream *tls = stream->filter_state;
    struct tls_session *session = &tls->session;
    int64_t now_ms = io_now_ms(stream->io);
    bool paused = now_ms - tls->sealed_ms >= PAUSE_MS;
    size_t total = 0;
    while (total < SEAL_MAX_BYTES && left_of(write)) {
        size_t record = paused && left_of(write) > TLS_RECORD_MAX_BYTES ? FIRST_RECORD_BYTES
                                                                        : TLS_RECORD_MAX_BYTES;
        struct slice bytes = next_plaintext(write, record);
        int result = tls_write(session, bytes.ptr, bytes.len, record);
        if (result < 0)
            return result;
        advance(write, bytes.len);
        total += bytes.len;
        paused = false;
        tls->sealed_ms = now_ms;
    }
    tls->sealed = session->output;
    session->output = (struct tls_output){0};
    *sealed = (struct iovec){tls->sealed.bytes, tls->sealed.len};
    return (int)tls->sealed.len;
}

static void sent(struct stream *stream)
{
    struct tls_stream *tls = stream->filter_state;
    tls_output_release(&tls->sealed);
}

static void shut(struct stream *stream)
{
    struct tls_stream *tls = stream->filter_state;
    tls_close(&tls->session);
    flush(stream);
}

/* Says that this is the end, if the socket takes it at once: nobody waits for that. */
static void say_goodbye(struct stream *stream, struct tls_session *session)
{
    if (!stream->shut)
        tls_close(session);
    if (session->output.len)
        send(stream->fd, session->output.bytes, session->output.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void closed(struct stream *stream)
{
    struct tls_stream *tls = stream->filter_state;
    if (!stream->reset && stream->end >= 0)
        say_goodbye(stream, &tls->session);
    tls_end(&tls->session);
    tls_output_release(&tls->sealed);
    free(tls);
    stream->filter_state = NULL;
}
