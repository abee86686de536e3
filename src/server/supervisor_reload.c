#include "server/supervisor_internal.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counters.h"
#include "server/last_words.h"
#include "server/notify.h"

void reload_begin(struct supervisor *supervisor)
{
    if (supervisor->stopping)
        return;
    if (!supervisor->reload_wanted_ms)
        supervisor->reload_wanted_ms = clock_now_ms();
    if (supervisor->upgrade.pid)
        log_info("the reload waits for the end of the upgrade");
    if (supervisor->upgrade.pid || supervisor->reload != IDLE || !supervisor->ready)
        return;
    supervisor->reload_started_ms = supervisor->reload_wanted_ms;
    supervisor->reload_wanted_ms = 0;
    int result = probe_start(&supervisor->probe, supervisor->options->site,
                             supervisor->options->script_timeout_ms);
    if (result < 0) {
        log_error("reload failed: cannot start the probe: %s; the old site serves on",
                  strerror(-result));
        counters_add(COUNTER_RELOADS_FAILED, 1);
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
    supervisor_go_on(supervisor);
}

void reload_watch(struct supervisor *supervisor, const struct probe_result *result)
{
    for (unsigned i = 0; i < result->file_count; i++)
        watch_add(&supervisor->watch, result->files[i]);
}

void reload_fail(struct supervisor *supervisor, const char *why)
{
    log_error("reload failed, the old site serves on: %s", why);
    counters_add(COUNTER_RELOADS_FAILED, 1);
    if (supervisor->reload == PREPARING)
        workers_tell(supervisor, CONTROL_ABORT, supervisor->next, -1);
    bounds_drop_fresh(&supervisor->bounds);
    memories_drop_fresh(&supervisor->memories);
    reload_watch(supervisor, &supervisor->probed); /* what is wrong may be put right there */
    end_reload(supervisor);
}

static void send_fresh_listeners(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->bounds.count; i++) {
        const struct bound *bound = supervisor->bounds.items[i];
        for (unsigned j = 0; bound->fresh && j < supervisor->count; j++)
            worker_tell(supervisor, j, CONTROL_LISTEN, 0, bound->key, bound->fds[j]);
    }
}

static void send_memories(struct supervisor *supervisor)
{
    for (unsigned i = 0; i < supervisor->memories.count; i++)
        if (supervisor->memories.items[i].wanted)
            workers_tell(supervisor, CONTROL_SHARE, 0, supervisor->memories.items[i].fd);
}

/* Workers load the site in slices, half of the time: a script may take twice as long. */
static void set_deadline(struct supervisor *supervisor)
{
    supervisor->reload_deadline = clock_now_ms() + workers_load_ms(supervisor) +
                                  (int64_t)supervisor->options->script_timeout_ms;
    supervisor->reload_asked = false;
}

static void commit(struct supervisor *supervisor)
{
    supervisor->reload = COMMITTING;
    set_deadline(supervisor);
    supervisor->generation = supervisor->next;
    probe_result_free(&supervisor->serving);
    supervisor->serving = supervisor->probed;
    supervisor->probed = (struct probe_result){0};
    watch_clear(&supervisor->watch);
    reload_watch(supervisor, &supervisor->serving);
    bounds_quiesce_unwanted(&supervisor->bounds);
    workers_tell(supervisor, CONTROL_COMMIT, supervisor->next, -1);
    workers_stand_in_fresh(supervisor);
    bounds_settle(&supervisor->bounds);
    memories_settle(&supervisor->memories);
}

static void probe_ended(struct supervisor *supervisor)
{
    char error[512];
    if (supervisor->stopping) {
        supervisor->reload = IDLE;
        return;
    }
    if (supervisor->probed.error) {
        reload_fail(supervisor, supervisor->probed.error);
        return;
    }
    if (!bounds_want(&supervisor->bounds, (const char *const *)supervisor->probed.addresses,
                     supervisor->probed.address_count, error, sizeof(error)) ||
        !memories_want(&supervisor->memories, (const char *const *)supervisor->probed.memories,
                       supervisor->probed.memory_count, error, sizeof(error))) {
        reload_fail(supervisor, error);
        return;
    }
    supervisor->next = supervisor->generation + 1;
    supervisor->reload = PREPARING;
    set_deadline(supervisor);
    send_fresh_listeners(supervisor);
    send_memories(supervisor);
    /* One that is not running need not answer: it will start with the new generation. */
    for (unsigned i = 0; i < supervisor->count; i++)
        supervisor->workers[i].answered = !supervisor->workers[i].pid;
    workers_tell(supervisor, CONTROL_PREPARE, supervisor->next, supervisor->probed.sources);
    if (workers_all_answered(supervisor))
        commit(supervisor);
}

bool reload_preparing(const struct supervisor *supervisor, uint64_t generation)
{
    return !supervisor->stopping && supervisor->reload == PREPARING &&
           generation == supervisor->next;
}

void reload_worker_prepared(struct supervisor *supervisor)
{
    if (workers_all_answered(supervisor))
        commit(supervisor);
}

void reload_worker_failed(struct supervisor *supervisor, unsigned index)
{
    if (supervisor->reload == PREPARING) {
        supervisor->workers[index].answered = true;
        reload_worker_prepared(supervisor);
    } else if (supervisor->reload == COMMITTING && !workers_any_old(supervisor)) {
        log_error("worker %u could not begin with generation %llu: no further reload waits for it",
                  index, (unsigned long long)supervisor->generation);
        counters_add(COUNTER_RELOADS_FAILED, 1);
        end_reload(supervisor);
    }
}

void reload_committed(struct supervisor *supervisor)
{
    counters_add(COUNTER_RELOADS_DONE, 1);
    log_info("generation %llu serves (%lld ms)", (unsigned long long)supervisor->generation,
             (long long)(clock_now_ms() - supervisor->reload_started_ms));
    end_reload(supervisor);
}

static bool late(const struct supervisor *supervisor, enum reload state)
{
    return supervisor->reload == state && !supervisor->stopping &&
           clock_now_ms() >= supervisor->reload_deadline;
}

/* A layer may hold up a worker that has nothing to do with the reload: it is interrupted, and its
 * worker has a little longer to answer. */
static bool last_chance_is_over(struct supervisor *supervisor)
{
    if (supervisor->reload_asked)
        return true;
    supervisor->reload_asked = true;
    supervisor->reload_deadline = clock_now_ms() + LAST_WORDS_MS;
    if (supervisor->reload == PREPARING)
        workers_signal_silent(supervisor, LAST_WORDS_SIGNAL);
    else
        workers_signal_old(supervisor, LAST_WORDS_SIGNAL);
    return false;
}

void reload_step(struct supervisor *supervisor)
{
    if (supervisor->reload == PROBING && probe_step(&supervisor->probe, &supervisor->probed))
        probe_ended(supervisor);
    if (late(supervisor, PREPARING) && last_chance_is_over(supervisor)) {
        workers_signal_silent(supervisor, SIGKILL);
        reload_fail(supervisor, "a worker did not load the site in time");
    }
    if (late(supervisor, COMMITTING) && last_chance_is_over(supervisor)) {
        workers_signal_old(supervisor, SIGKILL);
        supervisor->reload_deadline =
            DEADLINE_NEVER; /* those that are started again will serve it */
    }
}

int64_t reload_next_due(const struct supervisor *supervisor)
{
    if (supervisor->reload == PROBING)
        return supervisor->probe.deadline;
    if (supervisor->reload == IDLE || supervisor->stopping)
        return DEADLINE_NEVER;
    return supervisor->reload_deadline;
}
