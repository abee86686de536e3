#include "server/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counters.h"
#include "server/acceptor.h"
#include "server/hand_over.h"
#include "server/activation.h"
#include "server/inherit.h"
#include "server/notify.h"
#include "server/pid_file.h"
#include "server/supervisor_internal.h"

enum {
    DEBOUNCE_MS = 100,   /* --watch: editors write in several steps */
    STOP_WAIT_MS = 2000, /* for workers that were told to stop now */
};

/* --- Workers ---------------------------------------------------------------------------------- */

/* What the program before this one has kept until now. */
static void take_over(struct supervisor *supervisor)
{
    if (inherit_control() < 0)
        return;
    if (supervisor->options->pid_file)
        pid_file_write(supervisor->options->pid_file);
    inherit_tell_ready(&supervisor->bounds);
    inherit_drop_tunnels();
}

void supervisor_go_on(struct supervisor *supervisor)
{
    if (supervisor->stopping)
        return;
    if (supervisor->upgrade_wanted) /* it loads the site as it is, too */
        upgrade_begin(supervisor);
    if (supervisor->reload_wanted_ms)
        reload_begin(supervisor);
}

static void worker_ready(struct supervisor *supervisor, struct worker_slot *slot,
                         uint64_t generation)
{
    slot->generation = generation;
    slot->asked_ms = 0;
    workers_stand_in(supervisor);
    if (!workers_all_serve(supervisor))
        return;
    bounds_announce(&supervisor->bounds);
    if (!supervisor->ready) {
        supervisor->ready = true;
        take_over(supervisor);
        notify_send("READY=1");
        supervisor_go_on(supervisor);
    } else if (supervisor->reload == COMMITTING) {
        reload_committed(supervisor);
    }
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
        if (reload_preparing(supervisor, message->value))
            reload_worker_prepared(supervisor);
        break;
    case CONTROL_FAILED:
        slot->answered = true;
        if (reload_preparing(supervisor, message->value))
            reload_fail(supervisor, message->text);
        else
            log_error("worker %u cannot load the site: %s", index, message->text);
        break;
    case CONTROL_PONG:
        slot->pinged_ms = slot->asked_ms = 0;
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

static void worker_ended(struct supervisor *supervisor, unsigned index, int status)
{
    struct worker_slot *slot = &supervisor->workers[index];
    read_control(supervisor, index); /* its last words */
    pid_t pid = slot->pid;
    bool has_served = slot->generation != 0;
    close(slot->control);
    control_queue_clear(&slot->told);
    slot->pid = 0;
    slot->generation = 0;
    limits_clear(&supervisor->limits, index);
    counters_worker_ended(index);
    counters_add(COUNTER_WORKERS, -1);
    if (supervisor->stopping)
        return;
    counters_add(WIFSIGNALED(status) ? COUNTER_WORKERS_CRASHED : COUNTER_WORKERS_EXITED, 1);
    log_end(index, pid, status);
    if (!supervisor->ready && !has_served) {
        supervisor->exit_code = 1; /* it could not even start */
        supervisor->stopping = true;
        supervisor->stop_deadline = clock_now_ms() + STOP_WAIT_MS;
        workers_tell(supervisor, CONTROL_STOP, 0, -1);
        return;
    }
    worker_plan_restart(slot);
    worker_helps_no_more(supervisor, index);
    workers_stand_in(supervisor);
    if (!has_served)
        reload_worker_failed(supervisor, index);
    else if (supervisor->reload == PREPARING)
        reload_fail(supervisor, "a worker died while it loaded the site");
}

static void reap(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++) {
        int status;
        pid_t pid = supervisor->workers[i].pid;
        if (pid && waitpid(pid, &status, WNOHANG) == pid)
            worker_ended(supervisor, i, status);
    }
    upgrade_reap(supervisor);
}

/* --- Events ----------------------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void stop(struct supervisor *supervisor, bool now)
{
    int64_t deadline = clock_now_ms() + STOP_WAIT_MS + (now ? 0 : supervisor->serving.grace_ms);
    if (supervisor->upgrade.takes_tunnels && !now)
        deadline += HAND_OVER_MAX_MS;
    /* Who asks again and again does not have it take longer. */
    supervisor->stop_deadline =
        supervisor->stopping ? earlier(supervisor->stop_deadline, deadline) : deadline;
    if (!supervisor->stopping && !supervisor->upgrade.successor)
        notify_send("STOPPING=1");
    upgrade_abandon(supervisor);
    supervisor->stopping = true;
    if (supervisor->reload == PROBING)
        kill(supervisor->probe.pid, SIGKILL);
    log_info(now ? "stopping now" : "finishing requests, then stopping (at most %u ms)",
             supervisor->serving.grace_ms);
    bounds_quiesce(&supervisor->bounds);
    workers_tell(supervisor, now ? CONTROL_STOP : CONTROL_DRAIN, supervisor->serving.grace_ms, -1);
    /* Workers accept what was queued; then nobody holds the sockets open. */
    bounds_close(&supervisor->bounds);
}

/* TERM and QUIT. One that drains for a new program has not been asked yet: its operator wants what
 * a first signal means, and that is under way. */
static void asked_to_stop(struct supervisor *supervisor)
{
    bool again =
        supervisor->stopping && (supervisor->asked_to_stop || !supervisor->upgrade.successor);
    if (supervisor->stopping && !again)
        log_info("this program is finishing requests already, since a new program has taken over; "
                 "another signal stops it now");
    else
        stop(supervisor, again);
    supervisor->asked_to_stop = true;
}

static void take_signals(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    while (read(supervisor->signals, &info, sizeof(info)) == sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGHUP:
            upgrade_pass_on(supervisor, SIGHUP);
            reload_begin(supervisor);
            break;
        case SIGTERM:
        case SIGQUIT:
            asked_to_stop(supervisor);
            break;
        case SIGINT:
            stop(supervisor, true);
            break;
        case SIGUSR1:
            upgrade_pass_on(supervisor, SIGUSR1);
            workers_tell(supervisor, CONTROL_REOPEN, 0, -1);
            break;
        case SIGUSR2:
            upgrade_begin(supervisor);
            break;
        case SIGCHLD:
            reap(supervisor);
            break;
        }
    }
}

/* When something is due that no descriptor tells of. */
static int64_t next_due(const struct supervisor *supervisor)
{
    int64_t due = earlier(workers_next_due(supervisor), reload_next_due(supervisor));
    due = earlier(due, upgrade_next_due(supervisor));
    if (supervisor->stopping)
        due = earlier(due, supervisor->stop_deadline);
    if (supervisor->changed_ms)
        due = earlier(due, supervisor->changed_ms + DEBOUNCE_MS);
    return due;
}

static void do_what_is_due(struct supervisor *supervisor)
{
    int64_t now = clock_now_ms();
    if (supervisor->stopping && now >= supervisor->stop_deadline) {
        log_error("workers that do not end are killed");
        workers_kill(supervisor);
        supervisor->stop_deadline = DEADLINE_NEVER;
    }
    upgrade_step(supervisor);
    workers_kill_late(supervisor);
    workers_ping(supervisor);
    reload_step(supervisor);
    if (supervisor->changed_ms && now >= supervisor->changed_ms + DEBOUNCE_MS) {
        supervisor->changed_ms = 0;
        log_info("a file of the site has changed: reloading");
        reload_begin(supervisor);
    }
    workers_start_due(supervisor);
}

/* Waits for the next event and handles it. */
static void turn(struct supervisor *supervisor)
{
    struct pollfd polls[WORKERS_MAX + 4];
    polls[0] = (struct pollfd){.fd = supervisor->signals, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = supervisor->watch.fd, .events = POLLIN};
    polls[2] = (struct pollfd){.fd = supervisor->reload == PROBING ? supervisor->probe.fd : -1,
                               .events = POLLIN};
    polls[3] = (struct pollfd){.fd = supervisor->upgrade.pid ? supervisor->upgrade.control : -1,
                               .events = POLLIN};
    for (unsigned i = 0; i < supervisor->count; i++) {
        const struct worker_slot *slot = &supervisor->workers[i];
        polls[4 + i] =
            (struct pollfd){.fd = slot->pid ? slot->control : -1,
                            .events = control_queue_waits(&slot->told) ? POLLIN | POLLOUT : POLLIN};
    }
    int64_t due = next_due(supervisor);
    int64_t wait = due == DEADLINE_NEVER ? -1 : due - clock_now_ms();
    if (due != DEADLINE_NEVER && wait < 0)
        wait = 0;
    if (poll(polls, supervisor->count + 4, wait > 60000 ? 60000 : (int)wait) < 0)
        return;
    for (unsigned i = 0; i < supervisor->count; i++) {
        if (polls[4 + i].revents & POLLOUT)
            worker_tell_rest(supervisor, i);
        if (polls[4 + i].revents & POLLIN)
            read_control(supervisor, i);
    }
    if (polls[3].revents && upgrade_hear(supervisor))
        stop(supervisor, false);
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
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool start(struct supervisor *supervisor, struct probe_result *probed)
{
    char error[512];
    supervisor->signals = open_signals();
    if (supervisor->signals < 0) {
        log_error("cannot take signals: %s", strerror(errno));
        return false;
    }
    supervisor->watch.fd = -1;
    supervisor->probe.fd = -1;
    supervisor->generation = 1;
    supervisor->serving = *probed;
    *probed = (struct probe_result){0};
    workers_plan(supervisor);
    if (!bounds_want(&supervisor->bounds, (const char *const *)supervisor->serving.addresses,
                     supervisor->serving.address_count, error, sizeof(error))) {
        log_error("%s", error);
        return false;
    }
    inherit_drop_rest();
    activation_warn_unused();
    bounds_settle(&supervisor->bounds);
    int counting = counters_open(supervisor->count);
    if (counting < 0)
        log_error("no memory for the counters that workers share: %s; ml.stats and ml.metrics tell "
                  "of one worker each",
                  strerror(-counting));
    memories_read(&supervisor->memories);
    if (!memories_want(&supervisor->memories, (const char *const *)supervisor->serving.memories,
                       supervisor->serving.memory_count, error, sizeof(error))) {
        log_error("%s", error);
        return false;
    }
    memories_settle(&supervisor->memories);
    int mapped = limits_open(&supervisor->limits, supervisor->count, acceptors_connections_max());
    if (mapped < 0) {
        log_error("no memory for the counts that workers share: %s", strerror(-mapped));
        return false;
    }
    if (supervisor->options->watch) {
        int result = watch_init(&supervisor->watch);
        if (result < 0)
            log_error("cannot watch files: %s; --watch has no effect", strerror(-result));
        reload_watch(supervisor, &supervisor->serving);
    }
    return !supervisor->options->pid_file || inherit_control() >= 0 ||
           pid_file_write(supervisor->options->pid_file);
}

int supervisor_main(const struct options *options, struct probe_result *probed)
{
    static struct supervisor supervisor; /* one per process */
    supervisor.options = options;
    log_set_role("supervisor");
    if (!start(&supervisor, probed)) {
        bounds_close(&supervisor.bounds);
        probe_result_free(&supervisor.serving);
        return 1;
    }
    workers_start_due(&supervisor);
    while (!(supervisor.stopping && workers_all_gone(&supervisor)))
        turn(&supervisor);
    bounds_close(&supervisor.bounds);
    probe_result_free(&supervisor.probed);
    probe_result_free(&supervisor.serving);
    watch_fini(&supervisor.watch);
    limits_close(&supervisor.limits);
    memories_close(&supervisor.memories);
    /* It is another's behind a takeover, and still another's before ours. */
    if (options->pid_file && !supervisor.upgrade.successor && inherit_control() < 0)
        unlink(options->pid_file);
    return supervisor.exit_code;
}
