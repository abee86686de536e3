#include "server/supervisor_internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/cpu_time.h"
#include "base/counters.h"
#include "server/inherit.h"
#include "server/last_words.h"
#include "server/worker.h"

enum {
    CRASH_WINDOW_MS = 10000, /* a worker that lived shorter is restarted with a delay */
    RESTART_DELAY_MAX_MS = 5000,
    LOAD_BESIDE_MS = 2000, /* for all but the script: a busy machine may not run a worker at once */
    LEND_TIMES = 2,        /* as much again as it may take, for one that is kept from the CPUs */
    PING_EVERY_MS = 1000,
    PONG_WITHIN_MS = 2000, /* or as long as a script may take, if that is longer */
};

void workers_plan(struct supervisor *supervisor)
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
    supervisor->bounds.workers = supervisor->count;
}

/* In the child: keeps its own sockets only, and becomes the worker. */
static void child_main(struct supervisor *supervisor, unsigned index, int control)
{
    static struct worker_listener listeners[LISTENERS_MAX];
    for (unsigned i = 0; i < supervisor->bounds.count; i++) {
        struct bound *bound = supervisor->bounds.items[i];
        for (unsigned j = 0; j < supervisor->count; j++)
            if (j != index)
                close(bound->fds[j]);
        listeners[i] = (struct worker_listener){bound->key, bound->fds[index]};
    }
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid) {
            close(supervisor->workers[i].control);
            control_queue_clear(&supervisor->workers[i].told);
        }
    if (supervisor->probe.fd >= 0) {
        close(supervisor->probe.fd);
        close(supervisor->probe.sources);
    }
    if (supervisor->upgrade.pid) {
        close(supervisor->upgrade.control);
        close(supervisor->upgrade.tunnels);
    }
    if (inherit_control() >= 0)
        close(inherit_control());
    close(supervisor->signals);
    watch_fini(&supervisor->watch);
    memories_offer(&supervisor->memories);
    struct worker_options options = {
        .index = index,
        .cpu = supervisor->cpus[index],
        .site = supervisor->options->site,
        .io = supervisor->options->io,
        .sources = supervisor->serving.sources,
        .generation = supervisor->generation,
        .control = control,
        .script_timeout_ms = supervisor->options->script_timeout_ms,
        .listeners = listeners,
        .listener_count = supervisor->bounds.count,
        .tunnels = inherit_tunnels(),
        .limits = {supervisor->limits.shared, index},
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
    counters_add(COUNTER_WORKERS, 1);
    slot->control = sockets[0];
    slot->untold = false;
    slot->generation = 0;
    slot->restart_ms = 0;
    slot->pinged_ms = slot->asked_ms = 0;
    slot->next_ping_ms = slot->started_ms + PING_EVERY_MS;
}

/* While others prepare a generation, nobody could say which one a new worker has loaded. */
static bool may_start(const struct supervisor *supervisor)
{
    return !supervisor->stopping && supervisor->reload != PREPARING;
}

static bool starting(const struct worker_slot *slot)
{
    return slot->pid && !slot->generation;
}

int64_t workers_load_ms(const struct supervisor *supervisor)
{
    return (int64_t)supervisor->options->script_timeout_ms + LOAD_BESIDE_MS;
}

/* When the patience with one that says nothing is over next, if it was first at `first_ms`. */
static int64_t patience_until(const struct worker_slot *slot, int64_t first_ms)
{
    if (!slot->asked_ms)
        return first_ms;
    return slot->asked_ms + (slot->asks == 1 ? LAST_WORDS_MS : LAST_PLACE_MS);
}

/* When one that starts is late. */
static int64_t late_at(const struct supervisor *supervisor, const struct worker_slot *slot)
{
    return patience_until(slot, slot->started_ms + workers_load_ms(supervisor));
}

/* How long one may take to answer. */
static int64_t answer_ms(const struct supervisor *supervisor)
{
    int64_t script_ms = supervisor->options->script_timeout_ms;
    return script_ms > PONG_WITHIN_MS ? script_ms : PONG_WITHIN_MS;
}

/* When one that was pinged is late. */
static int64_t silent_until(const struct supervisor *supervisor, const struct worker_slot *slot)
{
    return patience_until(slot, slot->pinged_ms + answer_ms(supervisor) + slot->lent_ms);
}

/* Is it the machine that keeps it from answering? Where CPUs are short it gets more time, until it
 * has had a quarter of what it may take, as one that loops will soon have. */
static bool lend(const struct supervisor *supervisor, struct worker_slot *slot, unsigned index,
                 int64_t now)
{
    int64_t used_ms = cpu_time_ms(slot->pid) - slot->pinged_cpu_ms;
    int64_t short_ms = answer_ms(supervisor) / 4 - used_ms;
    if (short_ms <= 0 || slot->lent_ms >= LEND_TIMES * answer_ms(supervisor) ||
        !cpu_time_wanted(slot->pid))
        return false;
    if (!slot->lent_ms)
        log_warn("worker %u has had a CPU for %lld ms of %lld: the machine is too busy", index,
                 (long long)used_ms, (long long)(now - slot->pinged_ms));
    slot->lent_ms += short_ms;
    return true;
}

static void signal_silent(pid_t pid, int number)
{
    counters_add(number == SIGKILL ? COUNTER_WORKERS_KILLED : COUNTER_WORKERS_INTERRUPTED, 1);
    kill(pid, number);
}

/* Asks for its last words, a second time for where it stands, and then kills it. `what` it has
 * done, for the log. */
static void press(struct worker_slot *slot, unsigned index, const char *what, int64_t now)
{
    if (!slot->asked_ms)
        slot->asks = 0;
    bool last = slot->asks >= 2;
    if (slot->asks == 1) {
        kill(slot->pid, LAST_WORDS_SIGNAL);
    } else {
        log_error("worker %u %s It is %s", index, what, last ? "killed" : "interrupted");
        signal_silent(slot->pid, last ? SIGKILL : LAST_WORDS_SIGNAL);
    }
    slot->asks++;
    slot->asked_ms = now;
}

static void ping(struct supervisor *supervisor, unsigned index, int64_t now)
{
    struct worker_slot *slot = &supervisor->workers[index];
    if (!slot->pinged_ms && now >= slot->next_ping_ms) {
        slot->pinged_ms = now;
        slot->pinged_cpu_ms = cpu_time_ms(slot->pid);
        slot->lent_ms = 0;
        slot->next_ping_ms = now + PING_EVERY_MS;
        worker_tell(supervisor, index, CONTROL_PING, 0, NULL, -1);
    } else if (slot->pinged_ms && now >= silent_until(supervisor, slot) &&
               (slot->asked_ms || !lend(supervisor, slot, index, now))) {
        char what[80];
        snprintf(what, sizeof(what), "has not reacted for %lld ms: does a layer loop?",
                 (long long)(now - slot->pinged_ms));
        press(slot, index, what, now);
    }
}

void workers_ping(struct supervisor *supervisor)
{
    int64_t now = clock_now_ms();
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid && supervisor->workers[i].generation)
            ping(supervisor, i, now);
}

void workers_start_due(struct supervisor *supervisor)
{
    int64_t now = clock_now_ms();
    for (unsigned i = 0; i < supervisor->count && may_start(supervisor); i++)
        if (!supervisor->workers[i].pid && now >= supervisor->workers[i].restart_ms)
            start_worker(supervisor, i);
}

int64_t workers_next_due(const struct supervisor *supervisor)
{
    int64_t due = DEADLINE_NEVER;
    for (unsigned i = 0; i < supervisor->count; i++) {
        const struct worker_slot *slot = &supervisor->workers[i];
        int64_t own = DEADLINE_NEVER;
        if (starting(slot))
            own = late_at(supervisor, slot);
        else if (slot->pid)
            own = slot->pinged_ms ? silent_until(supervisor, slot) : slot->next_ping_ms;
        else if (!slot->pid && may_start(supervisor))
            own = slot->restart_ms;
        due = own < due ? own : due;
    }
    return due;
}

void workers_tell(struct supervisor *supervisor, enum control_kind kind, uint64_t value, int fd)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        worker_tell(supervisor, i, kind, value, NULL, fd);
}

/* Whoever has missed a message would be wrong from then on: about its listeners, or its end. */
static void expect_told(struct worker_slot *slot, unsigned index, int result)
{
    if (result == 0 || result == -EPIPE ||
        result == -ECONNRESET) /* its end is about to be heard of */
        return;
    log_error("worker %u cannot be told what to do: %s. It is killed", index, strerror(-result));
    slot->untold = true;
    control_queue_clear(&slot->told);
    signal_silent(slot->pid, SIGKILL);
}

void worker_tell(struct supervisor *supervisor, unsigned index, enum control_kind kind,
                 uint64_t value, const char *text, int fd)
{
    struct worker_slot *slot = &supervisor->workers[index];
    if (slot->pid && !slot->untold)
        expect_told(slot, index,
                    control_queue_send(&slot->told, slot->control, kind, value, text, fd));
}

void worker_tell_rest(struct supervisor *supervisor, unsigned index)
{
    struct worker_slot *slot = &supervisor->workers[index];
    if (slot->pid && !slot->untold)
        expect_told(slot, index, control_queue_flush(&slot->told, slot->control));
}

bool workers_all_answered(const struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (!supervisor->workers[i].answered)
            return false;
    return true;
}

bool workers_all_serve(const struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].generation != supervisor->generation)
            return false;
    return true;
}

bool workers_all_gone(const struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid)
            return false;
    return true;
}

void workers_kill_late(struct supervisor *supervisor)
{
    int64_t now = clock_now_ms();
    for (unsigned i = 0; i < supervisor->count; i++) {
        struct worker_slot *slot = &supervisor->workers[i];
        if (!starting(slot) || now < late_at(supervisor, slot))
            continue;
        press(slot, i, "did not load the site in time.", now);
    }
}

void workers_signal_silent(struct supervisor *supervisor, int number)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid && !supervisor->workers[i].answered)
            signal_silent(supervisor->workers[i].pid, number);
}

static bool is_old(const struct supervisor *supervisor, const struct worker_slot *slot)
{
    return slot->pid && slot->generation && slot->generation != supervisor->generation;
}

bool workers_any_old(const struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (is_old(supervisor, &supervisor->workers[i]))
            return true;
    return false;
}

void workers_signal_old(struct supervisor *supervisor, int number)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (is_old(supervisor, &supervisor->workers[i]))
            signal_silent(supervisor->workers[i].pid, number);
}

void workers_kill(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->workers[i].pid)
            kill(supervisor->workers[i].pid, SIGKILL);
}

/* At once after a long life; with growing delays when it dies young again and again. */
void worker_plan_restart(struct worker_slot *slot)
{
    int64_t now = clock_now_ms();
    if (now - slot->started_ms >= CRASH_WINDOW_MS)
        slot->crashes = 0;
    int64_t delay = slot->crashes ? 100LL << (slot->crashes < 6 ? slot->crashes : 6) : 0;
    slot->crashes++;
    slot->restart_ms = now + (delay < RESTART_DELAY_MAX_MS ? delay : RESTART_DELAY_MAX_MS);
}
