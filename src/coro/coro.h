/*
 * Stackful coroutines of one thread: every active exchange runs in one, so that waiting reads as
 * a plain call. The main stack runs the event loop and all Lua; coroutines run native code only.
 *
 *        coro_start / coro_wake            coro_run_ready (main)
 *   new ───────────────────────▶ ready ───────────────────────▶ running
 *                                  ▲                               │ coro_wait
 *                                  └────────── waiting ◀───────────┘
 *
 * Waking never switches at once: it puts the coroutine on the ready queue, which the loop runs
 * when it has handled its completions. So no callback ever re-enters code that is half-way through.
 *
 * A job is the exception: a long computation with a deep stack of its own, Lua's too, that is never
 * queued. Whoever made it has it run, part by part.
 */
#ifndef CORO_CORO_H
#define CORO_CORO_H

#include <stdbool.h>
#include <stddef.h>

struct coro;

/* Queues a new coroutine that will call `fn(arg)`. Returns it, or NULL when memory is exhausted.
 * The coroutine frees itself when `fn` returns; the pointer is dead from then on. */
struct coro *coro_start(void (*fn)(void *arg), void *arg);

/* What a script's Lua and the C that it calls may need in turns. Only what is used takes memory. */
#define CORO_DEEP_STACK_BYTES ((size_t)96 << 20)

/* Makes a job that will call `fn(arg)`, which must not wait. NULL when memory is exhausted. */
struct coro *coro_job_create(void (*fn)(void *arg), void *arg);

/* Runs it to its next pause. True: `fn` has returned, and the job is no more. Main stack only. */
bool coro_job_step(struct coro *job);

/* In a job: ends this step of it. */
void coro_job_pause(void);

/* The running coroutine, or NULL on the main stack. */
struct coro *coro_self(void);

/* Runs every ready coroutine until none is left. Main stack only. */
void coro_run_ready(void);

/* True if coro_run_ready has something to do. */
bool coro_any_ready(void);

/*
 * Suspends the running coroutine until coro_wake(it, result) and returns that result.
 * If it is cancelled meanwhile (or already was), `cancel(arg)` is called once, on which the wake
 * must follow sooner or later, usually with -ECANCELED. A NULL `cancel` makes the wait
 * uncancellable: for short waits that protect memory which the kernel still uses.
 */
int coro_wait(void (*cancel)(void *arg), void *arg);

/* Ends the wait of `coro` with `result`. The first wake wins; later ones are ignored until the
 * coroutine runs again, so whoever waits must deregister from all its sources on return. */
void coro_wake(struct coro *coro, int result);

/* Marks `coro` as cancelled for good: its present and all its later waits end with -ECANCELED. */
void coro_cancel(struct coro *coro);

/* Has the running coroutine been cancelled? False on the main stack. */
bool coro_cancelled(void);

/* Calls `fn(arg)` on the main stack and returns when it has. `fn` must not wait. Callable from
 * the main stack too. This is how Lua runs: never on a coroutine's small stack. */
void coro_on_main(void (*fn)(void *arg), void *arg);

/* How many coroutines exist, and how many stacks are kept for reuse. */
size_t coro_count(void);
size_t coro_stacks_cached(void);

/* Gives the memory back of half of these, but of a bounded number, those that were used last
 * excepted. */
void coro_trim(void);

/* Frees the cached stacks; for leak checks at exit. */
void coro_fini(void);

#endif
