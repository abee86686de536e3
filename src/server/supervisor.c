#include "server/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/listener.h"
#include "server/control.h"
#include "server/notify.h"
#include "server/sources.h"
#include "server/watch.h"
#include "server/worker.h"

enum {
    KEY_MAX = 256,
    DEBOUNCE_MS = 100,       /* --watch: editors write in several steps */
    CRASH_WINDOW_MS = 10000, /* a worker that lived shorter is restarted with a delay */
    RESTART_DELAY_MAX_MS = 5000,
    STOP_WAIT_MS = 2000, /* for workers that were told to stop now */
    LISTENERS_MAX = 1024,
};

/* One bound address. */
struct bound {
    char key[KEY_MAX];
    struct address address;
    int fds[WORKERS_MAX]; /* one per worker; kept for workers that are started again */
    bool wanted;          /* by the generation that is being prepared */
    bool fresh;           /* bound for that generation */
    bool announced;
};

struct worker_slot {
    pid_t pid; /* 0: not running */
    int control;
    uint64_t generation; /* that it serves; 0: none yet */
    bool answered;       /* to what it was last asked */
    int64_t started_ms;
    int64_t restart_ms; /* when to start it again; 0: now is fine */
    unsigned crashes;   /* in a row, each soon after the start */
};

enum reload { IDLE, PROBING, PREPARING, COMMITTING };

struct supervisor {
    const struct options *options;
    unsigned count;
    struct worker_slot workers[WORKERS_MAX];
    int cpus[WORKERS_MAX];
    struct bound **bounds;
    unsigned bound_count;
    uint64_t generation; /* that serves */
    uint64_t next;       /* that is being prepared */
    enum reload reload;
    bool reload_again; /* another HUP came meanwhile */
    int64_t reload_started_ms;
    int64_t prepare_deadline;
    struct probe probe;
    struct probe_result probed;  /* of the generation that is being prepared */
    struct probe_result serving; /* of the one that serves */
    struct watch watch;
    int64_t changed_ms; /* a watched file changed then; 0: none did */
    bool ready;         /* has been announced */
    bool stopping;
    int64_t stop_deadline;
    int signals; /* signalfd */
    int exit_code;
    struct control_message message;
};

/* --- Addresses -------------------------------------------------------------------------------- */

static struct bound *find_bound(struct supervisor *supervisor, const char *key)
{
    for (unsigned i = 0; i < supervisor->bound_count; i++)
        if (strcmp(supervisor->bounds[i]->key, key) == 0)
            return supervisor->bounds[i];
    return NULL;
}

static bool same_address_twice(const char *const *addresses, unsigned index)
{
    struct address address;
    const char *why;
    if (address_parse(slice_from_cstr(addresses[index]), &address, &why) != 0 ||
        (address.any.sa_family != AF_UNIX && address_port(&address) == 0))
        return false;
    for (unsigned i = 0; i < index; i++)
        if (strcmp(addresses[i], addresses[index]) == 0)
            return true;
    return false;
}

static bool bind_address(struct supervisor *supervisor, const char *text, const char *key,
                         char *error, size_t size)
{
    const char *why = "out of memory";
    struct bound *bound = calloc(1, sizeof(*bound));
    struct bound **grown =
        realloc(supervisor->bounds, (supervisor->bound_count + 1) * sizeof(*grown));
    if (grown)
        supervisor->bounds = grown;
    if (!bound || !grown || address_parse(slice_from_cstr(text), &bound->address, &why) != 0 ||
        listener_open(&bound->address, bound->fds, supervisor->count, &why) != 0) {
        snprintf(error, size, "cannot listen on %s: %s", text, why);
        free(bound);
        return false;
    }
    snprintf(bound->key, sizeof(bound->key), "%s", key);
    bound->wanted = bound->fresh = true;
    grown[supervisor->bound_count++] = bound;
    return true;
}

/* Closes the sockets for which `unwanted` holds. */
static void close_bounds(struct supervisor *supervisor, bool (*unwanted)(const struct bound *bound))
{
    unsigned kept = 0;
    for (unsigned i = 0; i < supervisor->bound_count; i++) {
        struct bound *bound = supervisor->bounds[i];
        if (!unwanted(bound)) {
            supervisor->bounds[kept++] = bound;
            continue;
        }
        listener_close(&bound->address, bound->fds, supervisor->count);
        free(bound);
    }
    supervisor->bound_count = kept;
}

static bool is_fresh(const struct bound *bound)
{
    return bound->fresh;
}

static bool is_unwanted(const struct bound *bound)
{
    return !bound->wanted;
}

static bool any(const struct bound *bound)
{
    (void)bound;
    return true;
}

/* Binds what the probed site wants and is not bound yet. False with *error if one cannot be. */
static bool bind_all(struct supervisor *supervisor, const struct probe_result *probed, char *error,
                     size_t size)
{
    const char *const *addresses = (const char *const *)probed->addresses;
    for (unsigned i = 0; i < supervisor->bound_count; i++)
        supervisor->bounds[i]->wanted = supervisor->bounds[i]->fresh = false;
    if (probed->address_count > LISTENERS_MAX) {
        snprintf(error, size, "more than %d addresses", LISTENERS_MAX);
        return false;
    }
    for (unsigned i = 0; i < probed->address_count; i++) {
        char key[KEY_MAX];
        if (same_address_twice(addresses, i)) {
            snprintf(error, size, "%s is listened on twice", addresses[i]);
            return false;
        }
        listener_key(addresses, i, key, sizeof(key));
        struct bound *bound = find_bound(supervisor, key);
        if (bound)
            bound->wanted = true;
        else if (!bind_address(supervisor, addresses[i], key, error, size))
            return false;
    }
    return true;
}

/* --- Workers ---------------------------------------------------------------------------------- */

static void list_cpus(struct supervisor *supervisor)
{
    cpu_set_t set;
    unsigned found = 0;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE && found < WORKERS_MAX; cpu++)
            if (CPU_ISSET(cpu, &set))
                supervisor->cpus[found++] = cpu;
    if (!found)
        supervisor->cpus[found++] = -1;
    supervisor->count = supervisor->options->workers ? supervisor->options->workers : found;
    for (unsigned i = found; i < supervisor->count; i++)
        supervisor->cpus[i] = supervisor->cpus[i % found];
}

/* In the child: keeps its own sockets only, and becomes the worker. */
static void child_main(struct supervisor *supervisor, unsigned index, int control)
{
    static struct worker_listener listeners[LISTENERS_MAX];
    for (unsigned i = 0; i < supervisor->bound_count; i++) {
        struct bound *bound = supervisor->bounds[i];
        for (unsigned j = 0; j < supervisor->count; j++)
            if (j != index)
                close(bound->fds[j]);
        listeners[i] = (struct worker_listener){bound->key, bound->fds[index]};
    }
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid)
            close(supervisor->workers[i].control);
    close(supervisor->signals);
    watch_fini(&supervisor->watch);
    struct worker_options options = {
        .index = index,
        .cpu = supervisor->cpus[index],
        .site = supervisor->options->site,
        .io = supervisor->options->io,
        .sources = supervisor->serving.files,
        .source_count = supervisor->serving.file_count,
        .generation = supervisor->generation,
        .control = control,
        .listeners = listeners,
        .listener_count = supervisor->bound_count,
    };
    exit(worker_main(&options));
}

static void start_worker(struct supervisor *supervisor, unsigned index)
{
    struct worker_slot *slot = &supervisor->workers[index];
    int sockets[2];
    int result = control_pair(sockets);
    pid_t pid = -1;
    if (result == 0) {
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            close(sockets[0]);
            child_main(supervisor, index, sockets[1]);
        }
        close(sockets[1]);
        if (pid < 0) {
            result = -errno;
            close(sockets[0]);
        }
    }
    slot->started_ms = clock_now_ms();
    if (result < 0) {
        log_error("cannot start worker %u: %s; trying again in 1 s", index, strerror(-result));
        slot->restart_ms = clock_now_ms() + 1000;
        return;
    }
    slot->pid = pid;
    slot->control = sockets[0];
    slot->generation = 0;
    slot->restart_ms = 0;
}

static void tell_all(struct supervisor *supervisor, enum control_kind kind, uint64_t value, int fd)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid)
            control_send(supervisor->workers[i].control, kind, value, NULL, fd);
}

static bool all_workers(const struct supervisor *supervisor,
                        bool (*holds)(const struct supervisor *supervisor,
                                      const struct worker_slot *slot))
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (!holds(supervisor, &supervisor->workers[i]))
            return false;
    return true;
}

static bool answered(const struct supervisor *supervisor, const struct worker_slot *slot)
{
    (void)supervisor;
    return slot->answered;
}

static bool serves(const struct supervisor *supervisor, const struct worker_slot *slot)
{
    return slot->generation == supervisor->generation;
}

static bool gone(const struct supervisor *supervisor, const struct worker_slot *slot)
{
    (void)supervisor;
    return !slot->pid;
}

static void announce(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->bound_count; i++) {
        struct bound *bound = supervisor->bounds[i];
        char text[ADDRESS_TEXT_MAX];
        if (bound->announced)
            continue;
        bound->announced = true;
        address_format(&bound->address, text);
        printf("listening on %s\n", text);
    }
    fflush(stdout);
}

/* --- Reload ----------------------------------------------------------------------------------- */

static void begin_reload(struct supervisor *supervisor)
{
    if (supervisor->stopping)
        return;
    if (supervisor->reload != IDLE || !supervisor->ready) {
        supervisor->reload_again = true;
        return;
    }
    supervisor->reload_again = false;
    supervisor->reload_started_ms = clock_now_ms();
    int result = probe_start(&supervisor->probe, supervisor->options->site,
                             supervisor->options->load_timeout_ms);
    if (result < 0) {
        log_error("reload failed: cannot start the probe: %s; the old site serves on",
                  strerror(-result));
        return;
    }
    notify_reloading();
    supervisor->reload = PROBING;
}

static void end_reload(struct supervisor *supervisor)
{
    supervisor->reload = IDLE;
    probe_result_free(&supervisor->probed);
    notify_send("READY=1");
    if (supervisor->reload_again)
        begin_reload(supervisor);
}

static void watch_files(struct supervisor *supervisor, const struct probe_result *result)
{
    for (unsigned i = 0; i < result->file_count; i++)
        watch_add(&supervisor->watch, result->files[i].path);
}

static void fail_reload(struct supervisor *supervisor, const char *why)
{
    log_error("reload failed, the old site serves on: %s", why);
    if (supervisor->reload == PREPARING)
        tell_all(supervisor, CONTROL_ABORT, supervisor->next, -1);
    close_bounds(supervisor, is_fresh);
    watch_files(supervisor, &supervisor->probed); /* what is wrong may be put right there */
    end_reload(supervisor);
}

static void send_fresh_listeners(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->bound_count; i++) {
        struct bound *bound = supervisor->bounds[i];
        for (unsigned j = 0; bound->fresh && j < supervisor->count; j++)
            if (supervisor->workers[j].pid)
                control_send(supervisor->workers[j].control, CONTROL_LISTEN, 0, bound->key,
                             bound->fds[j]);
    }
}

static void commit(struct supervisor *supervisor)
{
    supervisor->reload = COMMITTING;
    supervisor->generation = supervisor->next;
    probe_result_free(&supervisor->serving);
    supervisor->serving = supervisor->probed;
    supervisor->probed = (struct probe_result){0};
    watch_clear(&supervisor->watch);
    watch_files(supervisor, &supervisor->serving);
    tell_all(supervisor, CONTROL_COMMIT, supervisor->next, -1);
    close_bounds(supervisor, is_unwanted);
    for (unsigned i = 0; i < supervisor->bound_count; i++)
        supervisor->bounds[i]->fresh = false;
}

static void probe_ended(struct supervisor *supervisor)
{
    char error[512];
    if (supervisor->stopping) {
        supervisor->reload = IDLE;
        return;
    }
    if (supervisor->probed.error) {
        fail_reload(supervisor, supervisor->probed.error);
        return;
    }
    if (!bind_all(supervisor, &supervisor->probed, error, sizeof(error))) {
        fail_reload(supervisor, error);
        return;
    }
    int sources = sources_share(supervisor->probed.files, supervisor->probed.file_count);
    if (sources < 0) {
        fail_reload(supervisor, strerror(-sources));
        return;
    }
    supervisor->next = supervisor->generation + 1;
    supervisor->reload = PREPARING;
    supervisor->prepare_deadline = clock_now_ms() + supervisor->options->load_timeout_ms;
    send_fresh_listeners(supervisor);
    /* One that is not running need not answer: it will start with the new generation. */
    for (unsigned i = 0; i < supervisor->count; i++)
        supervisor->workers[i].answered = !supervisor->workers[i].pid;
    tell_all(supervisor, CONTROL_PREPARE, supervisor->next, sources);
    close(sources);
    if (all_workers(supervisor, answered))
        commit(supervisor);
}

/* A worker that does not load what the probe could is stuck: only that one pays. */
static void kill_silent(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid && !supervisor->workers[i].answered)
            kill(supervisor->workers[i].pid, SIGKILL);
}

/* --- Events ----------------------------------------------------------------------------------- */

static void worker_ready(struct supervisor *supervisor, struct worker_slot *slot,
                         uint64_t generation)
{
    slot->generation = generation;
    if (!all_workers(supervisor, serves))
        return;
    announce(supervisor);
    if (!supervisor->ready) {
        supervisor->ready = true;
        notify_send("READY=1");
        if (supervisor->reload_again)
            begin_reload(supervisor);
    } else if (supervisor->reload == COMMITTING) {
        log_info("generation %llu serves (%lld ms)", (unsigned long long)generation,
                 (long long)(clock_now_ms() - supervisor->reload_started_ms));
        end_reload(supervisor);
    }
}

static bool preparing(const struct supervisor *supervisor, uint64_t generation)
{
    return !supervisor->stopping && supervisor->reload == PREPARING &&
           generation == supervisor->next;
}

static void hear(struct supervisor *supervisor, unsigned index)
{
    const struct control_message *message = &supervisor->message;
    struct worker_slot *slot = &supervisor->workers[index];
    switch (message->kind) {
    case CONTROL_READY:
        worker_ready(supervisor, slot, message->value);
        break;
    case CONTROL_PREPARED:
        slot->answered = true;
        if (preparing(supervisor, message->value) && all_workers(supervisor, answered))
            commit(supervisor);
        break;
    case CONTROL_FAILED:
        slot->answered = true;
        if (preparing(supervisor, message->value))
            fail_reload(supervisor, message->text);
        else
            log_error("worker %u cannot load the site: %s", index, message->text);
        break;
    default:
        log_error("control message %d is not for the supervisor", message->kind);
    }
}

static void read_control(struct supervisor *supervisor, unsigned index)
{
    struct worker_slot *slot = &supervisor->workers[index];
    while (slot->pid && control_receive(slot->control, &supervisor->message) > 0)
        hear(supervisor, index);
}

static void log_end(unsigned index, pid_t pid, int status)
{
    if (WIFSIGNALED(status))
        log_error("worker %u (pid %d) was ended by signal %d (%s): it is started again", index, pid,
                  WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        log_error("worker %u (pid %d) ended with exit code %d: it is started again", index, pid,
                  WEXITSTATUS(status));
}

/* At once after a long life; with growing delays when it dies young again and again. */
static void plan_restart(struct worker_slot *slot)
{
    int64_t now = clock_now_ms();
    if (now - slot->started_ms >= CRASH_WINDOW_MS)
        slot->crashes = 0;
    int64_t delay = slot->crashes ? 100LL << (slot->crashes < 6 ? slot->crashes : 6) : 0;
    slot->crashes++;
    slot->restart_ms = now + (delay < RESTART_DELAY_MAX_MS ? delay : RESTART_DELAY_MAX_MS);
}

static void worker_ended(struct supervisor *supervisor, unsigned index, int status)
{
    struct worker_slot *slot = &supervisor->workers[index];
    read_control(supervisor, index); /* its last words */
    pid_t pid = slot->pid;
    bool has_served = slot->generation != 0;
    close(slot->control);
    slot->pid = 0;
    slot->generation = 0;
    if (supervisor->stopping)
        return;
    log_end(index, pid, status);
    if (!supervisor->ready && !has_served) {
        supervisor->exit_code = 1; /* it could not even start */
        supervisor->stopping = true;
        supervisor->stop_deadline = clock_now_ms() + STOP_WAIT_MS;
        tell_all(supervisor, CONTROL_STOP, 0, -1);
        return;
    }
    plan_restart(slot);
    if (supervisor->reload == PREPARING)
        fail_reload(supervisor, "a worker died while it loaded the site");
}

static void reap(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++) {
        int status;
        pid_t pid = supervisor->workers[i].pid;
        if (pid && waitpid(pid, &status, WNOHANG) == pid)
            worker_ended(supervisor, i, status);
    }
}

static void stop(struct supervisor *supervisor, bool now)
{
    if (supervisor->stopping)
        now = true; /* a second signal hurries */
    if (!supervisor->stopping)
        notify_send("STOPPING=1");
    supervisor->stopping = true;
    if (supervisor->reload == PROBING)
        kill(supervisor->probe.pid, SIGKILL);
    log_info(now ? "stopping now" : "finishing requests, then stopping (at most %u ms)",
             supervisor->serving.grace_ms);
    supervisor->stop_deadline =
        clock_now_ms() + STOP_WAIT_MS + (now ? 0 : supervisor->serving.grace_ms);
    tell_all(supervisor, now ? CONTROL_STOP : CONTROL_DRAIN, supervisor->serving.grace_ms, -1);
    /* Workers have taken what was queued in their sockets; ours must not queue more. */
    close_bounds(supervisor, any);
}

static void take_signals(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    while (read(supervisor->signals, &info, sizeof(info)) == sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGHUP:
            begin_reload(supervisor);
            break;
        case SIGTERM:
        case SIGQUIT:
            stop(supervisor, false);
            break;
        case SIGINT:
            stop(supervisor, true);
            break;
        case SIGUSR1:
            tell_all(supervisor, CONTROL_REOPEN, 0, -1);
            break;
        case SIGCHLD:
            reap(supervisor);
            break;
        }
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool starting(const struct worker_slot *slot)
{
    return slot->pid && !slot->generation;
}

/* While others prepare a generation, nobody could say which one a new worker has loaded. */
static bool may_start(const struct supervisor *supervisor)
{
    return !supervisor->stopping && supervisor->reload != PREPARING;
}

/* When something is due that no descriptor tells of. */
static int64_t next_due(const struct supervisor *supervisor)
{
    int64_t due = DEADLINE_NEVER;
    if (supervisor->stopping)
        due = earlier(due, supervisor->stop_deadline);
    if (supervisor->reload == PROBING)
        due = earlier(due, supervisor->probe.deadline);
    if (supervisor->reload == PREPARING && !supervisor->stopping)
        due = earlier(due, supervisor->prepare_deadline);
    if (supervisor->changed_ms)
        due = earlier(due, supervisor->changed_ms + DEBOUNCE_MS);
    for (unsigned i = 0; i < supervisor->count; i++)
        if (starting(&supervisor->workers[i]))
            due = earlier(due,
                          supervisor->workers[i].started_ms + supervisor->options->load_timeout_ms);
    for (unsigned i = 0; i < supervisor->count && may_start(supervisor); i++)
        if (!supervisor->workers[i].pid)
            due = earlier(due, supervisor->workers[i].restart_ms);
    return due;
}

static void kill_late_starters(struct supervisor *supervisor, int64_t now)
{
    for (unsigned i = 0; i < supervisor->count; i++) {
        struct worker_slot *slot = &supervisor->workers[i];
        if (!starting(slot) || now < slot->started_ms + supervisor->options->load_timeout_ms)
            continue;
        log_error("worker %u did not load the site in time", i);
        kill(slot->pid, SIGKILL);
        slot->started_ms = now; /* once is enough */
    }
}

static void do_what_is_due(struct supervisor *supervisor)
{
    int64_t now = clock_now_ms();
    kill_late_starters(supervisor, now);
    if (supervisor->stopping && now >= supervisor->stop_deadline) {
        log_error("workers that do not end are killed");
        for (unsigned i = 0; i < supervisor->count; i++)
            if (supervisor->workers[i].pid)
                kill(supervisor->workers[i].pid, SIGKILL);
        supervisor->stop_deadline = DEADLINE_NEVER;
    }
    if (supervisor->reload == PROBING && probe_step(&supervisor->probe, &supervisor->probed))
        probe_ended(supervisor);
    if (preparing(supervisor, supervisor->next) && now >= supervisor->prepare_deadline) {
        kill_silent(supervisor);
        fail_reload(supervisor, "a worker did not load the site in time");
    }
    if (supervisor->changed_ms && now >= supervisor->changed_ms + DEBOUNCE_MS) {
        supervisor->changed_ms = 0;
        log_info("a file of the site has changed: reloading");
        begin_reload(supervisor);
    }
    for (unsigned i = 0; i < supervisor->count && may_start(supervisor); i++)
        if (!supervisor->workers[i].pid && now >= supervisor->workers[i].restart_ms)
            start_worker(supervisor, i);
}

/* Waits for the next event and handles it. */
static void turn(struct supervisor *supervisor)
{
    struct pollfd polls[WORKERS_MAX + 3];
    polls[0] = (struct pollfd){.fd = supervisor->signals, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = supervisor->watch.fd, .events = POLLIN};
    polls[2] = (struct pollfd){.fd = supervisor->reload == PROBING ? supervisor->probe.fd : -1,
                               .events = POLLIN};
    for (unsigned i = 0; i < supervisor->count; i++)
        polls[3 + i] =
            (struct pollfd){.fd = supervisor->workers[i].pid ? supervisor->workers[i].control : -1,
                            .events = POLLIN};
    int64_t due = next_due(supervisor);
    int64_t wait = due == DEADLINE_NEVER ? -1 : due - clock_now_ms();
    if (due != DEADLINE_NEVER && wait < 0)
        wait = 0;
    if (poll(polls, supervisor->count + 3, wait > 60000 ? 60000 : (int)wait) < 0)
        return;
    for (unsigned i = 0; i < supervisor->count; i++)
        if (polls[3 + i].revents & POLLIN)
            read_control(supervisor, i);
    if (polls[0].revents)
        take_signals(supervisor);
    if (polls[1].revents && watch_changed(&supervisor->watch))
        supervisor->changed_ms = clock_now_ms();
    do_what_is_due(supervisor);
}

/* --- Life ------------------------------------------------------------------------------------- */

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* Replaces the file in one step, so that nobody ever reads half a number. */
static bool write_pid_file(const char *path)
{
    char temporary[4096];
    snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid());
    FILE *file = fopen(temporary, "w");
    bool written = file && fprintf(file, "%d\n", getpid()) > 0;
    if (file)
        written &= fclose(file) == 0;
    if (written && rename(temporary, path) == 0)
        return true;
    log_error("cannot write the pid file %s: %s", path, strerror(errno));
    unlink(temporary);
    return false;
}

static bool start(struct supervisor *supervisor, struct probe_result *probed)
{
    char error[512];
    supervisor->signals = open_signals();
    supervisor->watch.fd = -1;
    supervisor->probe.fd = -1;
    supervisor->generation = 1;
    supervisor->serving = *probed;
    *probed = (struct probe_result){0};
    list_cpus(supervisor);
    if (!bind_all(supervisor, &supervisor->serving, error, sizeof(error))) {
        log_error("%s", error);
        return false;
    }
    for (unsigned i = 0; i < supervisor->bound_count; i++)
        supervisor->bounds[i]->fresh = false;
    if (supervisor->options->watch) {
        int result = watch_init(&supervisor->watch);
        if (result < 0)
            log_error("cannot watch files: %s; --watch has no effect", strerror(-result));
        watch_files(supervisor, &supervisor->serving);
    }
    return !supervisor->options->pid_file || write_pid_file(supervisor->options->pid_file);
}

int supervisor_main(const struct options *options, struct probe_result *probed)
{
    static struct supervisor supervisor; /* one per process */
    supervisor.options = options;
    log_set_role("supervisor");
    if (!start(&supervisor, probed)) {
        close_bounds(&supervisor, any);
        free(supervisor.bounds);
        probe_result_free(&supervisor.serving);
        return 1;
    }
    for (unsigned i = 0; i < supervisor.count; i++)
        start_worker(&supervisor, i);
    while (!(supervisor.stopping && all_workers(&supervisor, gone)))
        turn(&supervisor);
    close_bounds(&supervisor, any);
    free(supervisor.bounds);
    probe_result_free(&supervisor.probed);
    probe_result_free(&supervisor.serving);
    watch_fini(&supervisor.watch);
    if (options->pid_file)
        unlink(options->pid_file);
    return supervisor.exit_code;
}
