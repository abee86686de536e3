#include "coro/coro.h"

#include "base/list.h"
#include "coro/stack.h"
#include "coro/switch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

struct coro {
    struct list ready;      /* in the ready queue, or alone */
    void *context;          /* saved stack pointer while not running */
    struct stack stack;     /* owned */
    void (*fn)(void *arg);  /* what it runs */
    void *arg;              /* borrowed */
    void (*cancel)(void *); /* ends the present wait; NULL when uncancellable */
    void *cancel_arg;       /* borrowed */
    int result;             /* of the present wait, set by coro_wake */
    bool queued;            /* in the ready queue */
    bool waiting;           /* inside coro_wait */
    bool cancelled;         /* for good */
    bool finished;          /* fn has returned */
#ifdef WITH_ASAN
    void *fake_stack;
#endif
};

/* One scheduler per process: a worker has a single thread. */
static struct {
    struct list ready;
    struct coro *running;       /* NULL on the main stack */
    void *main_context;         /* saved while a coroutine runs */
    void (*main_fn)(void *arg); /* asked for by coro_on_main */
    void *main_arg;
    size_t count;
#ifdef WITH_ASAN
    void *main_fake_stack;
    const void *main_stack_base;
    size_t main_stack_bytes;
#endif
} sched = {.ready = {&sched.ready, &sched.ready}};

static void switch_to_main(struct coro *coro)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(coro->finished ? NULL : &coro->fake_stack, sched.main_stack_base,
                                   sched.main_stack_bytes);
#endif
    coro_switch(&coro->context, sched.main_context);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(coro->fake_stack, &sched.main_stack_base,
                                    &sched.main_stack_bytes);
#endif
}

static void switch_to_coro(struct coro *coro)
{
    sched.running = coro;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&sched.main_fake_stack, coro->stack.base, coro->stack.bytes);
#endif
    coro_switch(&sched.main_context, coro->context);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(sched.main_fake_stack, NULL, NULL);
#endif
    sched.running = NULL;
}

static void entry(void)
{
    struct coro *coro = sched.running;
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &sched.main_stack_base, &sched.main_stack_bytes);
#endif
    coro->fn(coro->arg);
    coro->finished = true;
    switch_to_main(coro);
    abort(); /* a finished coroutine is never resumed */
}

/* Returns whether it has ended; then it is no more. */
static bool run(struct coro *coro)
{
    switch_to_coro(coro);
    while (sched.main_fn) {
        void (*fn)(void *arg) = sched.main_fn;
        sched.main_fn = NULL;
        fn(sched.main_arg);
        switch_to_coro(coro);
    }
    if (!coro->finished)
        return false;
    stack_put(&coro->stack);
    free(coro);
    sched.count--;
    return true;
}

static void enqueue(struct coro *coro)
{
    coro->queued = true;
    list_push_back(&sched.ready, &coro->ready);
}

static struct coro *create(int (*get_stack)(struct stack *stack), void (*fn)(void *arg), void *arg)
{
    struct coro *coro = calloc(1, sizeof(*coro));
    if (!coro)
        return NULL;
    if (get_stack(&coro->stack) != 0) {
        free(coro);
        return NULL;
    }
    coro->fn = fn;
    coro->arg = arg;
    coro->context = coro_switch_prepare(coro->stack.base, coro->stack.bytes, entry);
    sched.count++;
    return coro;
}

struct coro *coro_start(void (*fn)(void *arg), void *arg)
{
    struct coro *coro = create(stack_get, fn, arg);
    if (coro)
        enqueue(coro);
    return coro;
}

static int deep_stack(struct stack *stack)
{
    return stack_map(stack, CORO_DEEP_STACK_BYTES);
}

struct coro *coro_job_create(void (*fn)(void *arg), void *arg)
{
    return create(deep_stack, fn, arg);
}

bool coro_job_step(struct coro *job)
{
    assert(!sched.running);
    return run(job);
}

void coro_job_pause(void)
{
    switch_to_main(sched.running);
}

struct coro *coro_self(void)
{
    return sched.running;
}

bool coro_any_ready(void)
{
    return !list_empty(&sched.ready);
}

void coro_run_ready(void)
{
    assert(!sched.running);
    while (!list_empty(&sched.ready)) {
        struct coro *coro = container_of(sched.ready.next, struct coro, ready);
        list_remove(&coro->ready);
        coro->queued = false;
        run(coro);
    }
}

int coro_wait(void (*cancel)(void *arg), void *arg)
{
    struct coro *coro = sched.running;
    assert(coro && !coro->queued);
    coro->waiting = true;
    coro->cancel = cancel;
    coro->cancel_arg = arg;
    if (coro->cancelled && cancel) {
        coro->cancel = NULL;
        cancel(arg);
    }
    switch_to_main(coro);
    coro->cancel = NULL;
    return coro->result;
}

void coro_wake(struct coro *coro, int result)
{
    if (!coro->waiting)
        return;
    coro->waiting = false;
    coro->cancel = NULL;
    coro->result = result;
    enqueue(coro);
}

void coro_cancel(struct coro *coro)
{
    coro->cancelled = true;
    void (*cancel)(void *arg) = coro->cancel;
    coro->cancel = NULL;
    if (cancel)
        cancel(coro->cancel_arg);
}

bool coro_cancelled(void)
{
    return sched.running && sched.running->cancelled;
}

void coro_on_main(void (*fn)(void *arg), void *arg)
{
    struct coro *coro = sched.running;
    if (!coro) {
        fn(arg);
        return;
    }
    sched.main_fn = fn;
    sched.main_arg = arg;
    switch_to_main(coro);
}

size_t coro_count(void)
{
    return sched.count;
}

void coro_trim(void)
{
    stack_dry_cached();
}

size_t coro_stacks_cached(void)
{
    return stack_cached();
}

void coro_fini(void)
{
    assert(sched.count == 0);
    stack_drop_cached();
}
