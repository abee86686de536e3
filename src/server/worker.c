#include "server/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "coro/coro.h"
#include "http/server.h"
#include "l4/conn.h"
#include "l4/tcp_proxy.h"
#include "proxy/access_log.h"
#include "proxy/log_sink.h"
#include "proxy/upstream.h"
#include "script/script.h"
#include "server/acceptor.h"
#include "server/adopt.h"
#include "server/control.h"
#include "server/hand_over.h"
#include "server/last_words.h"
#include "server/loader.h"
#include "server/memory_watch.h"
#include "server/privileges.h"
#include "server/stand_in.h"
#include "server/syscalls.h"
#include "server/trim.h"
#include "server/udp_listeners.h"
#include "shared/open.h"

enum {
    ABORT_WAIT_MS = 1000, /* for cancelled exchanges to end */
    MOVE_WAIT_MS = 20,    /* until it is looked again whether all tunnels have moved */
    /* What a worker that ends for its memory leaves to its requests. New clients wait until another
     * one stands in its place. */
    MEMORY_GRACE_MS = 2000,
};

struct worker {
    struct io *io;
    const struct worker_options *options;
    struct acceptors acceptors;
    struct stand_ins stand_ins; /* for workers that are dead */
    struct udp_listeners udp;
    struct adopters adopters;   /* of the tunnels of the program before this one */
    struct hand_over hand_over; /* of ours to the program behind it */
    int tunnels;                /* the socket for that; -1: it takes none */
    struct site *site;          /* serves */
    int sources;                /* that it was loaded from */
    struct loader loader;       /* prepares the next one */
    struct site *next;          /* prepared, waits for the commit; NULL if none */
    int next_sources;           /* of that, or of what is being loaded; -1 if none */
    struct memory_watch memory;
    struct trim trim;
    struct io_op control;
    struct timer grace;
    bool draining;
    bool stopping;
    bool finished;
    struct control_message message; /* too large for the stack of a callback */
};

/* --- Generations ------------------------------------------------------------------------------ */

/* A listener's chain in one generation, as the HTTP servers see it; in the site's arena. */
struct listener_service {
    struct service service;
    struct site *site;
    const struct chain *chain;
    bool layer4; /* the chain is one of connections */
};

static struct response *service_handle(struct service *service, struct request *request)
{
    const struct listener_service *self = (struct listener_service *)service;
    /* On a connection that was kept over a reload which made its port one of layer 4. */
    if (self->layer4 && request->version)
        return response_create_error(request, 503, RESPONSE_OVERLOADED,
                                     SLICE("this address does not speak HTTP any more"));
    return chain_run(self->chain, request);
}

static void service_retain(struct service *service)
{
    site_retain(((struct listener_service *)service)->site);
}

static void service_release(struct service *service)
{
    site_release(((struct listener_service *)service)->site);
}

static void service_refused(struct service *service, struct request *request, const char *why)
{
    const struct listener_service *self = (struct listener_service *)service;
    if (!self->layer4)
        access_log_refused(self->chain, request, why);
}

void listener_key(const char *const *addresses, unsigned index, char *key, unsigned size)
{
    unsigned same = 1;
    for (unsigned i = 0; i < index; i++)
        same += strcmp(addresses[i], addresses[index]) == 0;
    snprintf(key, size, same > 1 ? "%s#%u" : "%s", addresses[index], same);
}

/* Calls `fn` for every listener of the site with its key. */
static void each_listener(struct worker *worker, struct site *site,
                          void (*fn)(struct worker *worker, const char *key, struct site *site,
                                     struct site_listener *config))
{
    const char *seen[1024];
    unsigned count = 0;
    for (unsigned i = 0; i < site->listener_count; i++) {
        struct site_listener *config = site->listeners[i];
        for (unsigned j = 0; j < config->address_count && count < 1024; j++) {
            char key[256];
            seen[count++] = config->addresses[j];
            listener_key(seen, count - 1, key, sizeof(key));
            fn(worker, key, site, config);
        }
    }
}

static void mark_wanted(struct worker *worker, const char *key, struct site *site,
                        struct site_listener *config)
{
    (void)site;
    (void)config;
    struct acceptor *acceptor = acceptors_find(&worker->acceptors, key);
    struct udp_listener *udp = udp_listeners_find(&worker->udp, key);
    if (acceptor)
        acceptor->wanted = true;
    else if (udp)
        udp->wanted = true;
    else
        log_error("no socket for listener %s", key);
}

/* The proxy that a chain consists of, or NULL if there is more to it. */
static const struct l4_proxy *only_proxy(const struct chain *chain)
{
    return chain->count == 1 && chain->steps[0].layer == &l4_udp_proxy_layer ? chain->steps[0].self
                                                                             : NULL;
}

static void serve_with(struct worker *worker, const char *key, struct site *site,
                       struct site_listener *config)
{
    struct acceptor *acceptor = acceptors_find(&worker->acceptors, key);
    struct udp_listener *udp = udp_listeners_find(&worker->udp, key);
    struct listener_service *service = arena_alloc(&site->arena, sizeof(*service));
    if (!acceptor && !udp)
        return;
    if (!service) {
        log_error("no memory for listener %s: it keeps its old chain", key);
        return;
    }
    *service = (struct listener_service){
        .service = {service_handle, service_retain, service_release, service_refused},
        .site = site,
        .chain = &config->chain,
        .layer4 = config->config.start != NULL,
    };
    if (udp) {
        udp_server_set_service(&udp->server, &service->service, &config->config,
                               only_proxy(&config->chain));
        return;
    }
    http_server_set_service(&acceptor->server, &service->service, &config->config);
    acceptor_start(acceptor);
}

static void clear_wanted(struct worker *worker)
{
    list_for_each(node, &worker->acceptors.list) container_of(node, struct acceptor, link)->wanted =
        false;
}

static void commit(struct worker *worker, struct site *site)
{
    clear_wanted(worker);
    each_listener(worker, site, mark_wanted);
    each_listener(worker, site, serve_with);
    stand_ins_follow(&worker->stand_ins);
    list_for_each(node, &worker->acceptors.list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        if (!acceptor->wanted && acceptor->server.service) { /* else of a generation to come */
            acceptor_stop(acceptor);
            http_server_drain(&acceptor->server);
        }
    }
    udp_listeners_drain_unwanted(&worker->udp, io_now_ms(worker->io) + site->grace_ms);
    struct site *old = worker->site;
    worker->site = site;
    if (old)
        site_release(old);
}

static void drop_next(struct worker *worker)
{
    loader_drop(&worker->loader);
    if (worker->next)
        site_release(worker->next);
    worker->next = NULL;
    if (worker->next_sources >= 0)
        close(worker->next_sources);
    worker->next_sources = -1;
}

static int duplicate(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void prepare(struct worker *worker, uint64_t generation, int sources_fd)
{
    drop_next(worker);
    worker->next_sources = sources_fd;
    loader_begin(&worker->loader, generation, duplicate(sources_fd));
}

static void answer_prepare(struct worker *worker)
{
    char *error;
    uint64_t generation = worker->loader.generation;
    worker->next = loader_take(&worker->loader, &error);
    if (worker->next)
        control_send(worker->options->control, CONTROL_PREPARED, generation, NULL, -1);
    else
        control_send(worker->options->control, CONTROL_FAILED, generation, error, -1);
    free(error);
}

static void commit_next(struct worker *worker)
{
    struct site *site = worker->next;
    close(worker->sources);
    worker->sources = worker->next_sources;
    worker->next_sources = -1;
    worker->next = NULL;
    worker->memory = (struct memory_watch){0};
    commit(worker, site);
}

/* The same generation anew, beside the present one, as in a reload of which nobody else hears. */
static void restart_generation(struct worker *worker)
{
    char *error = NULL;
    counters_add(COUNTER_LUA_MEMORY_RESTARTS, 1);
    shared_offer_open();
    struct site *site =
        loader_load(&worker->loader, worker->site->generation, duplicate(worker->sources), &error);
    if (site)
        commit(worker, site);
    else
        log_error("the site could not be loaded anew: %s", error);
    free(error);
}

/* Sockets that came for a generation which is not to be. */
static void drop_unused(struct worker *worker)
{
    list_for_each(node, &worker->acceptors.list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        if (!acceptor->server.service)
            acceptor_stop(acceptor);
    }
    udp_listeners_drop_unused(&worker->udp);
}

/* --- The end ---------------------------------------------------------------------------------- */

static void abort_all(struct worker *worker)
{
    worker->stopping = true;
    hand_over_stop(&worker->hand_over);
    adopters_stop(&worker->adopters);
    list_for_each(node, &worker->acceptors.list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        acceptor_stop(acceptor);
        http_server_abort(&acceptor->server);
    }
    udp_listeners_abort(&worker->udp);
    l4_cancel_finishing();
    timer_start(io_timers(worker->io), &worker->grace, io_now_ms(worker->io) + ABORT_WAIT_MS);
}

static void grace_over(struct timer *timer)
{
    struct worker *worker = timer->owner;
    if (worker->stopping) {
        worker->finished = true;
        return;
    }
    if (hand_over_goes_on(&worker->hand_over)) { /* no grace is needed by those that move */
        timer_start(io_timers(worker->io), timer, io_now_ms(worker->io) + MOVE_WAIT_MS);
        return;
    }
    unsigned left = acceptors_connections(&worker->acceptors);
    log_warn("the grace period is over: %u connections are cut off",
             left + udp_listeners_flows(&worker->udp));
    abort_all(worker);
}

static void drain(struct worker *worker, uint64_t grace_ms)
{
    if (worker->draining)
        return;
    worker->draining = true;
    adopters_stop(&worker->adopters);
    if (worker->tunnels >= 0)
        hand_over_begin(&worker->hand_over, worker->tunnels);
    list_for_each(node, &worker->acceptors.list)
    {
        struct acceptor *acceptor = container_of(node, struct acceptor, link);
        acceptor_stop(acceptor);
        http_server_drain(&acceptor->server);
    }
    udp_listeners_drain(&worker->udp, DEADLINE_NEVER);
    timer_start(io_timers(worker->io), &worker->grace, io_now_ms(worker->io) + (int64_t)grace_ms);
}

/* --- Control ---------------------------------------------------------------------------------- */

static void add_listener(struct worker *worker, const char *key, int fd)
{
    if (udp_listeners_own(key))
        udp_listeners_add(&worker->udp, key, fd);
    else
        acceptors_add(&worker->acceptors, key, fd);
}

static void obey(struct worker *worker, const struct control_message *message)
{
    switch (message->kind) {
    case CONTROL_LISTEN:
        add_listener(worker, message->text, message->fd);
        break;
    case CONTROL_SHARE:
        shared_offer(message->fd);
        break;
    case CONTROL_PREPARE:
        prepare(worker, message->value, message->fd);
        break;
    case CONTROL_COMMIT:
        if (worker->next && worker->next->generation == message->value) {
            commit_next(worker);
            control_send(worker->options->control, CONTROL_READY, message->value, NULL, -1);
        }
        break;
    case CONTROL_ABORT:
        drop_next(worker);
        drop_unused(worker);
        break;
    case CONTROL_REOPEN:
        log_sinks_reopen();
        break;
    case CONTROL_DRAIN:
        drain(worker, message->value);
        break;
    case CONTROL_GIVE_UP:
        udp_listeners_give_up(&worker->udp);
        break;
    case CONTROL_HAND_OVER:
        worker->tunnels = message->fd;
        break;
    case CONTROL_STAND_IN:
        stand_in_begin(&worker->stand_ins, (unsigned)message->value, message->text, message->fd);
        break;
    case CONTROL_STAND_BACK:
        stand_in_end(&worker->stand_ins, (unsigned)message->value);
        break;
    case CONTROL_PING:
        control_send(worker->options->control, CONTROL_PONG, 0, NULL, -1);
        break;
    case CONTROL_STOP:
        abort_all(worker);
        break;
    default:
        log_error("control message %d is not for a worker", message->kind);
    }
}

static void await_control(struct worker *worker);

static void control_readable(struct io_op *op, int result, struct io_buf *buf, bool more)
{
    (void)buf;
    (void)more;
    struct worker *worker = op->owner;
    if (worker->finished || result == -ECANCELED)
        return;
    int got;
    while ((got = control_receive(worker->options->control, &worker->message)) > 0)
        obey(worker, &worker->message);
    if (got != -EAGAIN) {
        log_error("the supervisor is gone: this worker ends");
        worker->finished = true;
        return;
    }
    await_control(worker);
}

static void await_control(struct worker *worker)
{
    worker->control = (struct io_op){.kind = IO_OP_POLL,
                                     .fd = worker->options->control,
                                     .events = POLLIN,
                                     .done = control_readable,
                                     .owner = worker};
    io_submit(worker->io, &worker->control);
}

/* --- Life ------------------------------------------------------------------------------------- */

static void pin(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        log_warn("cannot pin this worker to CPU %d: %s", cpu, strerror(errno));
}

/* Functions of Lua's library call those of a script, which may call them again: that ends where
 * Lua's own stack does, and C's is to be the longer one. Only what is used of it takes memory; the
 * kernel keeps 128 MiB free for it. */
static void lengthen_stack(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= CORO_DEEP_STACK_BYTES)
        return;
    limit.rlim_cur =
        limit.rlim_max < CORO_DEEP_STACK_BYTES ? limit.rlim_max : CORO_DEEP_STACK_BYTES;
    setrlimit(RLIMIT_STACK, &limit);
}

static void settle_process(const struct worker_options *options)
{
    char role[32];
    static const int ignored[] = {SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
    snprintf(role, sizeof(role), "worker %u", options->index);
    log_set_role(role);
    privileges_drop(); /* which forgets the signal below */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* A terminal's Ctrl-C reaches every process of the group: the supervisor decides what it means.
     */
    for (unsigned i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    counters_be_worker(options->index);
    pin(options->cpu);
    lengthen_stack();
    last_words_prepare(options->script_timeout_ms);
}

static int start(struct worker *worker)
{
    const struct worker_options *options = worker->options;
    char *error = NULL;
    struct io_options io_options = {.kind = options->io};
    if (io_create(&worker->io, &io_options) != 0)
        return -1;
    syscalls_filter();
    acceptors_init(&worker->acceptors, worker->io, &options->limits);
    stand_ins_init(&worker->stand_ins, &worker->acceptors);
    udp_listeners_init(&worker->udp, worker->io, &options->limits);
    loader_init(&worker->loader, worker->io, options->site);
    timer_init(&worker->grace, grace_over, worker);
    hand_over_init(&worker->hand_over, worker->io, &worker->acceptors);
    worker->tunnels = -1;
    for (unsigned i = 0; i < options->listener_count; i++)
        add_listener(worker, options->listeners[i].key, options->listeners[i].fd);
    worker->sources = options->sources;
    worker->next_sources = -1;
    struct site *site =
        loader_load(&worker->loader, options->generation, duplicate(worker->sources), &error);
    if (!site) {
        control_send(options->control, CONTROL_FAILED, options->generation, error, -1);
        free(error);
        return -1;
    }
    commit(worker, site);
    adopters_init(&worker->adopters, worker->io, &worker->acceptors, options->tunnels);
    trim_begin(&worker->trim, worker->io, &worker->site);
    await_control(worker);
    control_send(options->control, CONTROL_READY, options->generation, NULL, -1);
    return 0;
}

static bool nothing_left(const struct worker *worker)
{
    return list_empty(&worker->acceptors.list) && list_empty(&worker->udp.list) &&
           !l4_finishing() && !hand_over_busy(&worker->hand_over) &&
           !adopters_busy(&worker->adopters);
}

static bool may_end(const struct worker *worker)
{
    return worker->finished || ((worker->draining || worker->stopping) && nothing_left(worker));
}

/* A generation that is about to be replaced, or to end, goes with its memory anyway. */
static void watch_memory(struct worker *worker)
{
    if (!script_memory_over(worker->site) || worker->loader.state != LOADER_IDLE || worker->next ||
        worker->draining || worker->stopping)
        return;
    switch (memory_watch_judge(&worker->memory, worker->site, io_now_ms(worker->io))) {
    case MEMORY_FINE:
        break;
    case MEMORY_RESTART:
        restart_generation(worker);
        break;
    case MEMORY_END:
        drain(worker,
              worker->site->grace_ms < MEMORY_GRACE_MS ? worker->site->grace_ms : MEMORY_GRACE_MS);
        break;
    }
}

static void turn(struct worker *worker)
{
    struct background *background = &worker->loader.background;
    io_turn(worker->io, coro_any_ready() || background_busy(background) ? 0 : -1);
    coro_run_ready();
    background_step(background);
    if (worker->loader.state == LOADER_DONE)
        answer_prepare(worker);
    watch_memory(worker);
}

/* Lets what is under way end, so that a leak checker finds nothing that was merely cut off. */
static void finish(struct worker *worker)
{
    hand_over_stop(&worker->hand_over);
    upstreams_close_idle();
    log_sinks_flush();
    drop_next(worker);
    trim_end(&worker->trim);
    site_release(worker->site);
    close(worker->sources);
    io_cancel(worker->io, &worker->control);
    for (int i = 0; i < 20; i++) {
        io_turn(worker->io, 5);
        coro_run_ready();
        background_finish(&worker->loader.background);
    }
}

int worker_main(const struct worker_options *options)
{
    static struct worker worker; /* one per process */
    worker.options = options;
    settle_process(options);
    if (start(&worker) != 0)
        return 1;
    while (!may_end(&worker)) {
        turn(&worker);
        acceptors_sweep(&worker.acceptors);
        udp_listeners_sweep(&worker.udp);
    }
    bool clean = nothing_left(&worker);
    if (clean)
        finish(&worker);
    return 0;
}
