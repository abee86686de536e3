#include "server/cpu_time.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t cpu_time_ms(pid_t pid)
{
    clockid_t clock;
    struct timespec used;
    int error = clock_getcpuclockid(pid, &clock);
    if (error)
        return -error;
    return clock_gettime(clock, &used) == 0 ? used.tv_sec * 1000LL + used.tv_nsec / 1000000 : 0;
}

/* The state stands behind the name, which is in parentheses and may have some itself. */
bool cpu_time_wanted(pid_t pid)
{
    char path[32];
    char text[256] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    const char *name_end = got > 0 ? strrchr(text, ')') : NULL;
    return name_end && strncmp(name_end, ") R", 3) == 0;
}
