/*
 * SIGUSR2: a new program takes this one's place.
 *
 *   USR2 ──▶ fork, exec of the program's file ──▶ it loads the site, starts workers ──▶ READY
 *                     └─ ends, or is late: killed ─▶ this one serves on     │
 *                                  this one accepts no more, drains, exits ◀┘
 *
 * Both hold the same listening sockets, so nobody who connects meanwhile is lost. Behind READY the
 * old workers offer their tunnels to the new ones (hand_over.h), over a socket that was made at the
 * start: a new program that knows nothing of this says nothing of it.
 */
#include "server/supervisor_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/tunnel_state.h"
#include "server/inherit.h"
#include "server/notify.h"
#include "server/pid_file.h"
#include "server/tunnel_socket.h"

enum {
    START_MS = 5000
}; /* beyond the time that the script may take, in the probe and in workers */

static _Noreturn void become(struct supervisor *supervisor, int written, int control, int tunnels)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    inherit_leave(&supervisor->bounds, written, control, tunnels);
    memories_leave(&supervisor->memories);
    execv(supervisor->options->program, supervisor->options->arguments);
    log_error("cannot execute %s: %s", supervisor->options->program, strerror(errno));
    _exit(1);
}

/* Returns the new program's process or a negative errno. */
static pid_t execute(struct supervisor *supervisor, int control, int tunnels)
{
    int written = inherit_write(&supervisor->bounds);
    if (written < 0)
        return written;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(supervisor, written, control, tunnels);
    int error = errno;
    close(written);
    return pid < 0 ? -error : pid;
}

static void close_pair(const int sockets[2])
{
    close(sockets[0]);
    close(sockets[1]);
}

/* Returns 0 or a negative errno. */
static int start(struct supervisor *supervisor)
{
    int sockets[2];
    int tunnels[2];
    int result = control_pair(sockets);
    if (result < 0)
        return result;
    result = tunnel_socket_pair(tunnels);
    if (result < 0) {
        close_pair(sockets);
        return result;
    }
    pid_t pid = execute(supervisor, sockets[1], tunnels[1]);
    if (pid < 0) {
        close_pair(sockets);
        close_pair(tunnels);
        return pid;
    }
    close(sockets[1]);
    close(tunnels[1]);
    supervisor->upgrade = (struct upgrade){
        .pid = pid,
        .control = sockets[0],
        .tunnels = tunnels[0],
        .deadline = clock_now_ms() + START_MS + 2 * (int64_t)supervisor->options->script_timeout_ms,
    };
    return 0;
}

void upgrade_begin(struct supervisor *supervisor)
{
    if (supervisor->upgrade.pid || supervisor->stopping) {
        log_warn("no upgrade now: %s",
                 supervisor->upgrade.pid ? "another one is under way" : "this program is stopping");
        return;
    }
    supervisor->upgrade_wanted = !supervisor->ready || supervisor->reload != IDLE;
    if (supervisor->upgrade_wanted) {
        log_info("the upgrade waits until the site is loaded");
        return;
    }
    int result = start(supervisor);
    if (result < 0) {
        log_error("upgrade failed: cannot start a new program: %s; this one serves on",
                  strerror(-result));
        return;
    }
    log_info("upgrade: %s is started as process %d", supervisor->options->program,
             supervisor->upgrade.pid);
}

static void forget(struct supervisor *supervisor)
{
    close(supervisor->upgrade.control);
    close(supervisor->upgrade.tunnels);
    supervisor->upgrade = (struct upgrade){0};
}

void upgrade_pass_on(struct supervisor *supervisor, int number)
{
    struct upgrade *upgrade = &supervisor->upgrade;
    if (upgrade->successor)
        kill(upgrade->successor, number);
    else if (upgrade->pid)
        upgrade->owed |= 1U << (unsigned)number;
}

/* The new program is this one's successor from now on. */
static void succeed(struct supervisor *supervisor)
{
    struct upgrade before = supervisor->upgrade;
    forget(supervisor);
    supervisor->upgrade.successor = before.pid;
    supervisor->upgrade.takes_tunnels = before.takes_tunnels;
    if (supervisor->reload_wanted_ms) /* it may have read the site before it was edited */
        before.owed |= 1U << SIGHUP;
    for (int number = 1; number < 32; number++)
        if (before.owed >> number & 1)
            upgrade_pass_on(supervisor, number);
}

void upgrade_abandon(struct supervisor *supervisor)
{
    if (!supervisor->upgrade.pid)
        return;
    kill(supervisor->upgrade.pid, SIGKILL);
    waitpid(supervisor->upgrade.pid, NULL, 0);
    forget(supervisor);
}

bool upgrade_hear(struct supervisor *supervisor)
{
    struct upgrade *upgrade = &supervisor->upgrade;
    bool ready = false;
    while (upgrade->pid && !ready && control_receive(upgrade->control, &supervisor->message) > 0) {
        const struct control_message *message = &supervisor->message;
        if (message->kind == CONTROL_ADOPTED)
            bounds_adopted(&supervisor->bounds, message->text, (unsigned)message->value);
        else if (message->kind == CONTROL_TAKES_TUNNELS)
            upgrade->takes_tunnels = message->value == TUNNEL_STATE_VERSION;
        else if (message->kind == CONTROL_READY)
            ready = true;
    }
    if (!ready)
        return false;
    char text[64];
    snprintf(text, sizeof(text), "MAINPID=%d\nREADY=1", upgrade->pid);
    notify_send(text); /* whom a service manager watches is ours to say as long as it is us */
    bounds_hand_over(&supervisor->bounds);
    workers_tell(supervisor, CONTROL_GIVE_UP, 0, -1);
    if (upgrade->takes_tunnels)
        workers_tell(supervisor, CONTROL_HAND_OVER, 0, upgrade->tunnels);
    log_info("upgrade: process %d has taken over", upgrade->pid);
    succeed(supervisor);
    return true;
}

void upgrade_reap(struct supervisor *supervisor)
{
    int status;
    pid_t pid = supervisor->upgrade.pid;
    if (!pid || waitpid(pid, &status, WNOHANG) != pid)
        return;
    if (WIFSIGNALED(status))
        log_error("upgrade failed: process %d was ended by signal %d (%s); this one serves on", pid,
                  WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        log_error("upgrade failed: process %d ended with exit code %d; this one serves on", pid,
                  WEXITSTATUS(status));
    bounds_adopted(&supervisor->bounds, NULL, 0);
    forget(supervisor);
    if (supervisor->options->pid_file)
        pid_file_write(supervisor->options->pid_file); /* it may have got so far */
    supervisor_go_on(supervisor);
}

int64_t upgrade_next_due(const struct supervisor *supervisor)
{
    return supervisor->upgrade.pid ? supervisor->upgrade.deadline : DEADLINE_NEVER;
}

void upgrade_step(struct supervisor *supervisor)
{
    struct upgrade *upgrade = &supervisor->upgrade;
    if (!upgrade->pid || clock_now_ms() < upgrade->deadline)
        return;
    log_error("upgrade: process %d was not ready in time: it is killed", upgrade->pid);
    kill(upgrade->pid, SIGKILL);
    upgrade->deadline = DEADLINE_NEVER;
}
