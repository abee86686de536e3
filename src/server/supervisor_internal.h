/* What the parts of the supervisor share: its books, its workers, its reloads. */
#ifndef SERVER_SUPERVISOR_INTERNAL_H
#define SERVER_SUPERVISOR_INTERNAL_H

#include "net/limits.h"
#include "server/bounds.h"
#include "server/control_queue.h"
#include "server/memories.h"
#include "server/options.h"
#include "server/probe.h"
#include "server/watch.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct worker_slot {
    pid_t pid; /* 0: not running */
    int control;
    struct control_queue told; /* what that did not take yet */
    bool untold;               /* it has missed something, and is being killed */
    uint64_t generation;       /* that it serves; 0: none yet */
    bool answered;             /* to what it was last asked */
    int64_t started_ms;
    int64_t pinged_ms;     /* when it was asked whether it lives; 0: it has answered */
    int64_t pinged_cpu_ms; /* what it had computed then */
    int64_t lent_ms;       /* how much longer it may take, as it waits for a CPU */
    int64_t next_ping_ms;
    int64_t asked_ms;   /* when it was asked for its last words; 0: it was not */
    unsigned asks;      /* how often, if it was */
    int64_t restart_ms; /* when to start it again; 0: now is fine */
    unsigned
        helper; /* which one stands in for it while it does not serve: its number + 1; 0: none */
    unsigned crashes; /* in a row, each soon after the start */
};

/* A new program that is to take this one's place; supervisor_upgrade.c. */
struct upgrade {
    pid_t pid; /* 0: there is none */
    int control;
    int tunnels;        /* our end of the socket to its workers */
    bool takes_tunnels; /* it has said so */
    int64_t deadline;
    uint32_t owed;   /* a set of signals, 1 << number: for the new one, once it has taken over */
    pid_t successor; /* it has: what is this one's is its, sockets and pid file; 0: none has. Nobody
                        waits for its end, so the number stays its */
};

enum reload { IDLE, PROBING, PREPARING, COMMITTING };

struct supervisor {
    const struct options *options;
    unsigned count;
    struct worker_slot workers[WORKERS_MAX];
    int cpus[WORKERS_MAX];
    struct bounds bounds;
    struct memories memories;
    struct limits limits; /* of all workers together; mapped before the first is started */
    uint64_t generation;  /* that serves */
    uint64_t next;        /* that is being prepared */
    enum reload reload;
    int64_t reload_wanted_ms;  /* when another HUP came, which has to wait; 0: none did */
    int64_t reload_started_ms; /* when the HUP of the present one came */
    int64_t reload_deadline;   /* for the workers to prepare, and to commit */
    bool reload_asked; /* that deadline is over: the silent ones were asked for last words */
    struct probe probe;
    struct probe_result probed;  /* of the generation that is being prepared */
    struct probe_result serving; /* of the one that serves */
    struct watch watch;
    int64_t changed_ms;  /* a watched file changed then; 0: none did */
    bool ready;          /* has been announced */
    bool upgrade_wanted; /* USR2 came during a reload */
    bool stopping;
    bool asked_to_stop; /* by a signal, not by a takeover */
    int64_t stop_deadline;
    int signals; /* signalfd */
    struct upgrade upgrade;
    int exit_code;
    struct control_message message;
};

/* A reload or an upgrade is over: begins what was asked for meanwhile. */
void supervisor_go_on(struct supervisor *supervisor);

/* --- supervisor_workers.c: starting, telling and ending them -----------------------------------
 */

/* Asks those that serve now and then whether they live, and kills those that say nothing. */
void workers_ping(struct supervisor *supervisor);

/* Decides how many there are and where each is pinned. */
void workers_plan(struct supervisor *supervisor);

/* Starts those that are due; the others' time is in workers_next_due. */
void workers_start_due(struct supervisor *supervisor);
int64_t workers_next_due(const struct supervisor *supervisor);

/* How long one may take to load a site. */
int64_t workers_load_ms(const struct supervisor *supervisor);

/* Sends a message to all, or to one if it runs; text may be NULL, fd -1. One that does not read
 * finds it later; one that cannot be told any more is killed. */
void workers_tell(struct supervisor *supervisor, enum control_kind kind, uint64_t value, int fd);
void worker_tell(struct supervisor *supervisor, unsigned index, enum control_kind kind,
                 uint64_t value, const char *text, int fd);

/* Its socket may take what waits to be told. */
void worker_tell_rest(struct supervisor *supervisor, unsigned index);

/* Does it hold for each of them? */
bool workers_all_answered(const struct supervisor *supervisor);
bool workers_all_serve(const struct supervisor *supervisor);
bool workers_all_gone(const struct supervisor *supervisor);

/* Does one of them serve an older generation than it should? */
bool workers_any_old(const struct supervisor *supervisor);

/* Kill those that are stuck: only they pay. Their ends are heard of as those of others. */
void workers_kill_late(struct supervisor *supervisor); /* to load the site when they start */
/* With SIGKILL, or with LAST_WORDS_SIGNAL to be told what holds them up: */
void workers_signal_silent(struct supervisor *supervisor, int number); /* to CONTROL_PREPARE */
void workers_signal_old(struct supervisor *supervisor, int number);    /* to CONTROL_COMMIT */
void workers_kill(struct supervisor *supervisor);

/* Plans when to start one again that has ended. */
void worker_plan_restart(struct worker_slot *slot);

/* --- supervisor_stand_in.c --------------------------------------------------------------------
 */

/* To be called when one has begun to serve, or has ended: sees to it that for each of those that do
 * not serve another one does, if there is any. */
void workers_stand_in(struct supervisor *supervisor);

/* A new generation serves: also on the listeners that are fresh. */
void workers_stand_in_fresh(struct supervisor *supervisor);

/* That one has ended. */
void worker_helps_no_more(struct supervisor *supervisor, unsigned index);

/* --- supervisor_reload.c -----------------------------------------------------------------------
 */

/* Begins one, or another behind what is under way. */
void reload_begin(struct supervisor *supervisor);

/* Ends it; the old generation serves on. */
void reload_fail(struct supervisor *supervisor, const char *why);

/* Is this generation being prepared? */
bool reload_preparing(const struct supervisor *supervisor, uint64_t generation);

/* To be called when a worker is prepared, and when all of them serve the new generation. */
void reload_worker_prepared(struct supervisor *supervisor);
void reload_committed(struct supervisor *supervisor);

/* One has ended before it has served. If a generation is being prepared, it was not that one: it
 * need not answer, as it will start with that. If it was the one that was committed, nobody waits
 * for it, so that another reload may put right what is wrong. */
void reload_worker_failed(struct supervisor *supervisor, unsigned index);

/* Goes on with what the probe has to say and with what is late. */
void reload_step(struct supervisor *supervisor);
int64_t reload_next_due(const struct supervisor *supervisor);

/* --watch: these files, too. */
void reload_watch(struct supervisor *supervisor, const struct probe_result *result);

/* --- supervisor_upgrade.c ----------------------------------------------------------------------
 */

/* SIGUSR2: begins one, or when the reload that is under way is over. */
void upgrade_begin(struct supervisor *supervisor);

/* A signal that concerns whoever serves: passes it on to the new program, if there is one, as soon
 * as it takes signals. */
void upgrade_pass_on(struct supervisor *supervisor, int number);

/* Kills the new program, if it has not taken over yet. */
void upgrade_abandon(struct supervisor *supervisor);

/* Hears what it has to say; true when it has just taken over: then this one is to end. */
bool upgrade_hear(struct supervisor *supervisor);

/* Sees whether it has ended, and whether it is late. */
void upgrade_reap(struct supervisor *supervisor);
void upgrade_step(struct supervisor *supervisor);
int64_t upgrade_next_due(const struct supervisor *supervisor);

#endif
