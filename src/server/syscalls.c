#include "server/syscalls.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "server/last_words.h"

enum { NUMBERS_MAX = 1024 };

static bool wanted;

/* --- What is allowed --------------------------------------------------------------------------
 */

/* Names that a machine does not have are passed over. */
static const char *const allowed[] = {
#ifdef WITH_ASAN /* it looks for leaks from a thread that traces */
    "clone", "getdents", "kill", "prctl", "prlimit64", "ptrace", "sched_getparam", "wait4",
#endif
    /* memory, of compiled Lua too */
    "brk", "madvise", "mmap", "mprotect", "mremap", "munmap",
    /* files: those of the site, static ones, logs, and what scripts do by io and os */
    "access", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "faccessat",
    "faccessat2", "fadvise64", "fallocate", "fcntl", "fdatasync", "flock", "fstat", "fstatfs",
    "fsync", "ftruncate", "getcwd", "getdents64", "lseek", "lstat", "mkdir", "mkdirat",
    "newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64",
    "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv", "rename", "renameat",
    "renameat2", "rmdir", "stat", "statfs", "statx", "umask", "unlink", "unlinkat", "write",
    "writev",
    /* pipes, memory that is handed on */
    "memfd_create", "pipe", "pipe2", "sendfile", "splice", "tee",
    /* sockets; see also limited[] */
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "recvfrom",
    "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    /* waiting */
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2",
    "io_uring_enter", "io_uring_register", "poll", "ppoll", "pselect6", "select", "timerfd_create",
    "timerfd_gettime", "timerfd_settime",
    /* time */
    "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday",
    "nanosleep", "setitimer", "time", "times",
    /* signals, locks, and the process itself */
    "exit", "exit_group", "futex", "get_robust_list", "getcpu", "getegid", "geteuid", "getgid",
    "getgroups", "getpid", "getppid", "getrandom", "getresgid", "getresuid", "getrlimit",
    "getrusage", "gettid", "getuid", "membarrier", "restart_syscall", "rseq", "rt_sigaction",
    "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield",
    "set_robust_list", "sigaltstack", "sysinfo", "uname"};

/* Allowed if one argument has that value. */
static const struct limited {
    const char *name;
    unsigned argument;
    uint64_t value;
} limited[] = {
    /* families */
    {"socket", 0, AF_UNIX},
    {"socket", 0, AF_INET},
    {"socket", 0, AF_INET6},
    {"socketpair", 0, AF_UNIX},
    /* what only asks: how much is there, is it a terminal, a process? */
    {"ioctl", 1, FIONREAD},
    {"ioctl", 1, TIOCOUTQ},
    {"ioctl", 1, TCGETS},
    {"kill", 1, 0},
    {"prlimit64", 2, 0},
};

/* No script has a reason for these. */
static const char *const hostile[] = {
#ifndef WITH_ASAN
    "ptrace",
#endif
    /* other programs, other processes */
    "execve", "execveat", "perf_event_open", "process_vm_readv", "process_vm_writev", "userfaultfd",
    /* other surroundings */
    "chroot", "fsmount", "fsopen", "mount", "move_mount", "open_by_handle_at", "open_tree",
    "pivot_root", "setns", "umount2", "unshare",
    /* the kernel, the machine, keys */
    "add_key", "bpf", "delete_module", "finit_module", "init_module", "ioperm", "iopl",
    "kexec_file_load", "kexec_load", "keyctl", "reboot", "request_key", "swapoff", "swapon"};

/* Refused without a word: the C library blocks signals around them, so that none could be said. */
static const char *const silent[] = {
#ifndef WITH_ASAN
    "clone",
#endif
    "clone3", "fork", "vfork"};

static int refuse_silently(scmp_filter_ctx filter)
{
    int result = 0;
    for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]) && result == 0; i++) {
        int number = seccomp_syscall_resolve_name(silent[i]);
        if (number >= 0)
            result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0);
    }
    return result;
}

static int allow_all(scmp_filter_ctx filter)
{
    int result = 0;
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && result == 0; i++) {
        int number = seccomp_syscall_resolve_name(allowed[i]);
        if (number >= 0)
            result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
    }
    return result;
}

static int allow_limited(scmp_filter_ctx filter)
{
    int result = 0;
    for (size_t i = 0; i < sizeof(limited) / sizeof(limited[0]) && result == 0; i++) {
        const struct limited *rule = &limited[i];
        int number = seccomp_syscall_resolve_name(rule->name);
        const struct scmp_arg_cmp compare = {rule->argument, SCMP_CMP_EQ, rule->value, 0};
        if (number >= 0)
            result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &compare);
    }
    return result;
}

/* Signals to itself, as abort sends them. */
static int allow_own_signals(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp self = {0, SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0};
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
}

/* --- What is not ------------------------------------------------------------------------------
 */

static bool is_hostile(int number)
{
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
        if (seccomp_syscall_resolve_name(hostile[i]) == number)
            return true;
    return false;
}

static bool is_first(int number)
{
    static bool seen[NUMBERS_MAX];
    if (number < 0 || number >= NUMBERS_MAX || seen[number])
        return false;
    seen[number] = true;
    return true;
}

static void answer(ucontext_t *context, int error)
{
#if defined(__x86_64__)
    context->uc_mcontext.gregs[REG_RAX] = -error;
#elif defined(__aarch64__)
    context->uc_mcontext.regs[0] = (uint64_t)-error;
#endif
}

/* The call has not been made; the kernel asks what to do instead. Newer ones than are known here
 * get ENOSYS, for which the C library has its older ways. */
static void refused(int signal_number, siginfo_t *info, void *context)
{
    int saved = errno;
    char *name = seccomp_syscall_resolve_num_arch(info->si_arch, info->si_syscall);
    bool ends = is_hostile(info->si_syscall);
    if (ends || is_first(info->si_syscall)) {
        log_error("the system call %s (%d) is not allowed by --seccomp: %s",
                  name ? name : "unknown", info->si_syscall,
                  ends ? "this process ends" : "it failed");
        last_words_tell_request();
    }
    free(name);
    if (ends) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
    answer(context, name ? EPERM : ENOSYS);
    errno = saved;
}

/* --- Setting up ------------------------------------------------------------------------------- */

static int load(scmp_filter_ctx filter)
{
    int result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, no list */
    if (result == 0)
        result = allow_all(filter);
    if (result == 0)
        result = allow_limited(filter);
    if (result == 0)
        result = allow_own_signals(filter);
    if (result == 0)
        result = refuse_silently(filter);
    return result == 0 ? seccomp_load(filter) : result;
}

void syscalls_want_filter(void)
{
    wanted = true;
}

void syscalls_filter(void)
{
    const struct sigaction action = {.sa_sigaction = refused,
                                     .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    if (!wanted)
        return;
    sigaction(SIGSYS, &action, NULL);
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    int result = filter ? load(filter) : -ENOMEM;
    if (result < 0) {
        log_error("cannot limit system calls (--seccomp): %s", strerror(-result));
        _exit(1);
    }
    seccomp_release(filter);
}
