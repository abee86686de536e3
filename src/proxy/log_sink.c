#include "proxy/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/output.h"
#include "io/io.h"

struct log_sink {
    struct list link; /* in `sinks` */
    struct io *io;
    char *target;         /* owned */
    struct output output; /* its descriptor is owned */
    unsigned users;
    struct timer flush;
    struct log_limit complaints;
    uint64_t dropped; /* lines, since they were told of last */
    size_t used;      /* of buffer */
    bool cut_short;   /* the last write ended within a line */
    char buffer[LOG_SINK_BYTES_MAX];
};

static struct list sinks = {&sinks, &sinks};

/* --- Opening ---------------------------------------------------------------------------------- */

static int open_target(const char *target)
{
    if (strcmp(target, "stdout") == 0)
        return output_duplicate(&output_standard);
    if (strcmp(target, "stderr") == 0)
        return output_duplicate(&output_error);
    int fd = open(target, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0640);
    return fd < 0 ? -errno : fd;
}

int log_sink_check(const char *target)
{
    int fd = open_target(target);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void complain(struct log_sink *sink, int error)
{
    uint32_t suppressed;
    if (!log_limit_pass(&sink->complaints, 1, &suppressed))
        return;
    log_error("access log %s: %s: %llu lines were dropped so far", sink->target, strerror(error),
              (unsigned long long)sink->dropped);
    sink->dropped = 0;
}

static uint64_t count_lines(const char *bytes, size_t len)
{
    uint64_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += bytes[i] == '\n';
    return count;
}

static void take_off(struct log_sink *sink, size_t count)
{
    sink->cut_short = sink->buffer[count - 1] != '\n';
    sink->used -= count;
    memmove(sink->buffer, sink->buffer + count, sink->used);
}

/* Lines that cannot be written make room; one that was begun is at least ended. */
static void drop_gathered(struct log_sink *sink, int error)
{
    uint64_t lines = count_lines(sink->buffer, sink->used);
    sink->dropped += lines;
    counters_add(COUNTER_LOG_LINES_DROPPED, (int64_t)lines);
    sink->used = 0;
    if (sink->cut_short)
        sink->buffer[sink->used++] = '\n';
    complain(sink, error);
}

/* Writes what is gathered, as far as it goes at once. */
static void flush(struct log_sink *sink)
{
    while (sink->used) {
        ssize_t count = output_write(&sink->output, sink->buffer, sink->used);
        if (count == 0 || count == -EAGAIN)
            return;
        if (count < 0) {
            drop_gathered(sink, (int)-count);
            return;
        }
        take_off(sink, (size_t)count);
    }
}

static void start_timer(struct log_sink *sink)
{
    if (sink->used && !timer_armed(&sink->flush))
        timer_start(io_timers(sink->io), &sink->flush, io_now_ms(sink->io) + LOG_SINK_FLUSH_MS);
}

static void flush_due(struct timer *timer)
{
    struct log_sink *sink = timer->owner;
    flush(sink);
    start_timer(sink);
}

struct slice log_sink_target(const struct log_sink *sink)
{
    return slice_from_cstr(sink->target);
}

void log_sink_write(struct log_sink *sink, struct slice line)
{
    if (line.len > LOG_SINK_BYTES_MAX - sink->used)
        flush(sink);
    if (line.len > LOG_SINK_BYTES_MAX - sink->used) {
        sink->dropped++;
        counters_add(COUNTER_LOG_LINES_DROPPED, 1);
        complain(sink, EAGAIN);
        return;
    }
    memcpy(sink->buffer + sink->used, line.ptr, line.len);
    sink->used += line.len;
    start_timer(sink);
}

/* --- Life ------------------------------------------------------------------------------------- */

static struct log_sink *find(const char *target)
{
    list_for_each(node, &sinks)
    {
        struct log_sink *sink = container_of(node, struct log_sink, link);
        if (strcmp(sink->target, target) == 0)
            return sink;
    }
    return NULL;
}

static int create(struct log_sink **out, struct io *io, const char *target)
{
    int fd = open_target(target);
    if (fd < 0)
        return fd;
    struct log_sink *sink = calloc(1, sizeof(*sink));
    char *copy = strdup(target);
    if (!sink || !copy) {
        free(sink);
        free(copy);
        close(fd);
        return -ENOMEM;
    }
    sink->io = io;
    sink->target = copy;
    sink->output = output_of(fd);
    timer_init(&sink->flush, flush_due, sink);
    list_push_back(&sinks, &sink->link);
    *out = sink;
    return 0;
}

int log_sink_open(struct log_sink **sink, struct io *io, const char *target)
{
    *sink = find(target);
    int result = *sink ? 0 : create(sink, io, target);
    if (result == 0)
        (*sink)->users++;
    return result;
}

void log_sink_release(struct log_sink *sink)
{
    if (--sink->users > 0)
        return;
    flush(sink);
    timer_stop(&sink->flush);
    list_remove(&sink->link);
    close(sink->output.fd);
    free(sink->target);
    free(sink);
}

void log_sinks_reopen(void)
{
    list_for_each(node, &sinks)
    {
        struct log_sink *sink = container_of(node, struct log_sink, link);
        flush(sink);
        int fd = open_target(sink->target);
        if (fd < 0) {
            log_error("access log %s cannot be opened again: %s: the old file is written to",
                      sink->target, strerror(-fd));
            continue;
        }
        close(sink->output.fd);
        sink->output = output_of(fd);
    }
}

void log_sinks_flush(void)
{
    list_for_each(node, &sinks)
    {
        flush(container_of(node, struct log_sink, link));
    }
}
