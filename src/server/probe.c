#include "server/probe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "proxy/upstream.h"
#include "script/script.h"
#include "server/memories.h"
#include "server/privileges.h"
#include "server/sources.h"
#include "server/syscalls.h"
#include "shared/open.h"

/* The report is a sequence of records: one letter, the text, NUL. */
enum record {
    ADDRESS = 'A',
    MEMORY = 'M',
    FILE_NAME = 'F',
    GRACE = 'G',
    SUMMARY = 'S',
    ERROR = 'E',
    DONE = 'D',
};

enum {
    REPORT_MAX_BYTES = 64 << 20,
    KILL_AFTER_MS = 500, /* for a script that cannot be interrupted */
};

/* --- The child -------------------------------------------------------------------------------- */

/* Where the child writes. */
struct report {
    FILE *out;
    int sources;
    int error; /* of the files that could not be kept; 0: there is none */
};

static void put(FILE *out, enum record kind, const char *text)
{
    fputc(kind, out);
    fputs(text, out);
    fputc('\0', out);
}

/* At once: who watches files must know them even if the script never ends. */
static void put_file(void *arg, const struct script_source *file)
{
    struct report *report = arg;
    put(report->out, FILE_NAME, file->path);
    fflush(report->out);
    if (report->error == 0)
        report->error = sources_add(report->sources, file);
}

static void put_failure(FILE *out, int error)
{
    char text[128];
    snprintf(text, sizeof(text), "cannot keep the site's files for the workers: %s",
             strerror(-error));
    put(out, ERROR, text);
}

static bool check_upstreams(struct site *site, FILE *out)
{
    for (unsigned i = 0; i < site->upstream_count; i++) {
        const char *error;
        struct site_upstream *upstream = site->upstreams[i];
        if (upstream_check(&upstream->config, &site->arena, &error) == 0)
            continue;
        struct slice text = arena_printf(&site->arena, "%s: upstream \"%s\": %s", upstream->where,
                                         upstream->config.name, error);
        put(out, ERROR, text.ptr ? text.ptr : "out of memory");
        return false;
    }
    return true;
}

static void put_memory(const struct shared_spec *spec, void *arg)
{
    char text[MEMORY_TEXT_MAX];
    memory_format(spec, text);
    put(arg, MEMORY, text);
}

static void report_site(struct site *site, FILE *out)
{
    char grace[16];
    for (unsigned i = 0; i < site->listener_count; i++)
        for (unsigned j = 0; j < site->listeners[i]->address_count; j++)
            put(out, ADDRESS, site->listeners[i]->addresses[j]);
    shared_each(put_memory, out);
    snprintf(grace, sizeof(grace), "%u", site->grace_ms);
    put(out, GRACE, grace);
    struct slice summary = site_describe(site, &site->arena);
    put(out, SUMMARY, summary.ptr ? summary.ptr : "");
}

static void child_main(const char *path, uint32_t timeout_ms, int fd, int sources)
{
    log_set_role("probe");
    privileges_drop(); /* which forgets the signal below */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    counters_leave();
    struct report report = {.out = fdopen(fd, "w"), .sources = sources};
    FILE *out = report.out;
    if (!out)
        _exit(1);
    syscalls_filter();
    struct script_options options = {
        .probe = true, .time_max_ms = timeout_ms, .on_file = put_file, .on_file_arg = &report};
    char *error = NULL;
    struct site *site = script_load_site(path, &options, &error);
    if (!site)
        put(out, ERROR, error ? error : "the site could not be loaded");
    else if (report.error)
        put_failure(out, report.error);
    else if (!site->listener_count)
        put(out, ERROR, "the site listens nowhere: it needs at least one ml.listen{...}");
    else if (check_upstreams(site, out))
        report_site(site, out);
    fputc(DONE, out);
    fflush(out);
    _exit(0); /* no clean-up: buffers of the parent's stdio were inherited too */
}

/* --- The parent ------------------------------------------------------------------------------- */

int probe_start(struct probe *probe, const char *site, uint32_t timeout_ms)
{
    int fds[2];
    *probe = (struct probe){.fd = -1};
    int sources = sources_create();
    if (sources < 0)
        return sources;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        int result = -errno;
        close(sources);
        return result;
    }
    pid_t pid = fork();
    if (pid < 0) {
        int result = -errno;
        close(sources);
        close(fds[0]);
        close(fds[1]);
        return result;
    }
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        close(fds[0]);
        child_main(site, timeout_ms, fds[1], sources);
    }
    close(fds[1]);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    probe->pid = pid;
    probe->fd = fds[0];
    probe->sources = sources;
    probe->timeout_ms = timeout_ms;
    probe->deadline = clock_now_ms() + timeout_ms + KILL_AFTER_MS;
    return 0;
}

static char *format_error(const char *format, int value)
{
    char *text = NULL;
    return asprintf(&text, format, value) < 0 ? NULL : text;
}

static bool append(char ***items, unsigned *count, const char *text)
{
    char **grown = realloc(*items, (*count + 1) * sizeof(**items));
    if (!grown)
        return false;
    *items = grown;
    grown[*count] = strdup(text);
    if (!grown[*count])
        return false;
    (*count)++;
    return true;
}

/* Takes the records apart. Returns false if the report is not whole. */
static bool parse_report(const struct probe *probe, struct probe_result *result)
{
    const char *at = probe->report;
    const char *end = at + probe->len;
    while (at < end && *at != DONE) {
        char kind = *at;
        const char *text = at + 1;
        const char *stop = memchr(text, '\0', (size_t)(end - text));
        if (!stop)
            return false;
        bool kept = true;
        if (kind == ADDRESS)
            kept = append(&result->addresses, &result->address_count, text);
        else if (kind == MEMORY)
            kept = append(&result->memories, &result->memory_count, text);
        else if (kind == GRACE)
            result->grace_ms = (uint32_t)strtoul(text, NULL, 10);
        else if (kind == SUMMARY)
            result->summary = strdup(text);
        else if (kind == ERROR)
            result->error = strdup(text);
        else if (kind == FILE_NAME)
            kept = append(&result->files, &result->file_count, text);
        if (!kept)
            return false;
        at = stop + 1;
    }
    return at < end;
}

static bool grow(struct probe *probe)
{
    size_t capacity = probe->capacity ? probe->capacity * 2 : 65536;
    char *grown = capacity <= REPORT_MAX_BYTES ? realloc(probe->report, capacity) : NULL;
    if (!grown)
        return false;
    probe->report = grown;
    probe->capacity = capacity;
    return true;
}

/* Returns whether there is no more to come. */
static bool gather(struct probe *probe)
{
    for (;;) {
        if (probe->capacity - probe->len < 4096 && !grow(probe)) {
            probe->too_large = true;
            return true;
        }
        ssize_t got = read(probe->fd, probe->report + probe->len, probe->capacity - probe->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 || errno != EAGAIN;
        probe->len += (size_t)got;
    }
}

static void describe_end(struct probe *probe, bool late, int status, struct probe_result *result)
{
    bool whole = probe->len && parse_report(probe, result);
    if (probe->too_large) {
        free(result->error);
        result->error =
            format_error("there is no room for what the script has to say: more than %d MiB",
                         (int)(probe->len >> 20));
    } else if (late) {
        free(result->error);
        result->error =
            format_error("the script did not finish within %d ms", (int)probe->timeout_ms);
    } else if (!whole)
        result->error =
            WIFSIGNALED(status)
                ? format_error("the script crashed (signal %d)", WTERMSIG(status))
                : format_error("the script ended its process (exit code %d)", WEXITSTATUS(status));
}

/* It may have left processes behind: they change nothing any more. */
static void take_sources(struct probe *probe, struct probe_result *result)
{
    int sealed = result->error ? 0 : sources_seal(probe->sources);
    if (sealed < 0 &&
        asprintf(&result->error, "the site's files cannot be kept for the workers: %s",
                 strerror(-sealed)) < 0)
        result->error = NULL;
    result->sources = probe->sources;
}

bool probe_step(struct probe *probe, struct probe_result *result)
{
    assert(probe->pid > 0); /* 0 stands for every process of the group in kill and waitpid */
    bool ended = gather(probe);
    bool late = !ended && clock_now_ms() >= probe->deadline;
    if (!ended && !late)
        return false;
    int status = 0;
    /* One that has said all is ending, which no signal changes any more; others might never end. */
    kill(probe->pid, SIGKILL);
    while (waitpid(probe->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    *result = (struct probe_result){0};
    describe_end(probe, late, status, result);
    take_sources(probe, result);
    close(probe->fd);
    free(probe->report);
    *probe = (struct probe){.fd = -1};
    return true;
}

void probe_run(const char *site, uint32_t timeout_ms, struct probe_result *result)
{
    struct probe probe;
    int started = probe_start(&probe, site, timeout_ms);
    if (started < 0) {
        *result = (struct probe_result){.error = strdup(strerror(-started))};
        return;
    }
    do {
        int64_t left = probe.deadline - clock_now_ms();
        struct pollfd poller = {.fd = probe.fd, .events = POLLIN};
        poll(&poller, 1, left > 0 ? (int)left : 0);
    } while (!probe_step(&probe, result));
}

static void free_all(char **items, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        free(items[i]);
    free(items);
}

void probe_result_free(struct probe_result *result)
{
    free_all(result->addresses, result->address_count);
    free_all(result->memories, result->memory_count);
    free_all(result->files, result->file_count);
    if (result->sources)
        close(result->sources);
    free(result->summary);
    free(result->error);
    *result = (struct probe_result){0};
}
