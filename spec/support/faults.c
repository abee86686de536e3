/*
 * Preloaded into the program by spec/support/faults.lua: has system calls fail, and the clock of
 * the calendar wrong, as a file says that the spec changes while the program runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* faults.lua writes it. */
struct faults {
    int64_t clock_offset_s;
    int32_t accept4, send, recv, socket, epoll_ctl; /* errno of each call, or 0 */
};

static const volatile struct faults *faults;

__attribute__((constructor)) static void map(void)
{
    static const struct faults none;
    const char *path = getenv("SPEC_FAULTS");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(none), PROT_READ, MAP_SHARED, fd, 0);
    faults = mapped == MAP_FAILED ? &none : mapped;
    if (fd >= 0)
        close(fd);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The call with these arguments, unless it is to fail. */
#define CALL(fault, name, ...)                                                                     \
    do {                                                                                           \
        static __typeof__(&name) real;                                                             \
        if (faults && faults->fault) {                                                             \
            errno = faults->fault;                                                                 \
            return -1;                                                                             \
        }                                                                                          \
        if (!real)                                                                                 \
            real = REAL(name);                                                                     \
        return real(__VA_ARGS__);                                                                  \
    } while (0)

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    CALL(accept4, accept4, fd, address, len, flags);
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    CALL(send, send, fd, bytes, len, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    CALL(send, sendmsg, fd, message, flags);
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    CALL(recv, recv, fd, bytes, len, flags);
}

int socket(int domain, int type, int protocol)
{
    CALL(socket, socket, domain, type, protocol);
}

int epoll_ctl(int epoll, int how, int fd, struct epoll_event *event)
{
    CALL(epoll_ctl, epoll_ctl, epoll, how, fd, event);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = REAL(clock_gettime);
    int result = real(clock, now);
    if (faults && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += faults->clock_offset_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    *now = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
