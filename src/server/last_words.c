#include "server/last_words.h"

#include <execinfo.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/output.h"
#include "http/exchange.h"
#include "script/interrupt.h"

#ifdef WITH_ASAN
enum { HANDLES_CRASHES = false }; /* the sanitizer has more to say */
#else
enum { HANDLES_CRASHES = true };
#endif

enum { STACK_BYTES = 64 * 1024, FRAMES_MAX = 64, WORDS_SECONDS_MAX = 2 };

static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
static uint32_t script_time_ms;
static int crash; /* the signal of the one that is being told of */

static void write_backtrace(void)
{
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);
    backtrace_symbols_fd(frames, count, output_error.fd);
}

void last_words_tell_request(void)
{
    const struct exchange *exchange = exchange_running();
    const struct request *request = exchange ? &exchange->request : interrupt_request();
    if (!request)
        return;
    log_error("at request %llu: %.*s %.*s%.*s", (unsigned long long)request->id,
              (int)request->method_name.len,
              request->method_name.ptr ? request->method_name.ptr : "", (int)request->authority.len,
              request->authority.ptr ? request->authority.ptr : "", (int)request->path.len,
              request->path.ptr ? request->path.ptr : "");
}

static void end(int number)
{
    (void)number;
    signal(crash, SIG_DFL);
    raise(crash);
}

/* Nothing can be relied on any more: the alarm ends words that never come to an end, and so does
 * what fails in them; the unwinder aborts where it meets compiled Lua. */
static void crashed(int number, siginfo_t *info, void *context)
{
    (void)context;
    crash = number;
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        signal(crashes[i], end);
    alarm(WORDS_SECONDS_MAX);
    log_error("crashed: %s, address %p", strsignal(number),
              number == SIGABRT ? NULL : info->si_addr);
    last_words_tell_request();
    log_error("the program stands at (addr2line -e tells the lines)");
    write_backtrace();
    end(number);
}

/* In a layer the traceback of its error tells where; one that no error reaches is asked again. */
static void asked(int number)
{
    (void)number;
    if (interrupt_is_armed()) {
        interrupt_log_place();
        return;
    }
    last_words_tell_request();
    if (interrupt_running(script_time_ms))
        return;
    log_error("the program stands at (addr2line -e tells the lines)");
    write_backtrace();
}

/* On a stack of its own: an overflow of a coroutine's is among the crashes. */
static void handle_crashes(void)
{
    static char stack[STACK_BYTES];
    const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = crashed,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    if (sigaltstack(&alternative, NULL) != 0)
        return;
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        sigaction(crashes[i], &action, NULL);
}

void last_words_prepare(uint32_t time_ms)
{
    void *frame;
    backtrace(&frame, 1); /* its first call allocates: not to be done in a handler */
    script_time_ms = time_ms;
    if (HANDLES_CRASHES)
        handle_crashes();
    struct sigaction action = {.sa_handler = asked, .sa_flags = SA_RESTART};
    sigaction(LAST_WORDS_SIGNAL, &action, NULL);
}
