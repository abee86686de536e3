#include "server/pid_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* Replaces the file in one step, so that nobody ever reads half a number. */
bool pid_file_write(const char *path)
{
    char temporary[4096];
    snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid());
    FILE *file = fopen(temporary, "w");
    bool written = file && fprintf(file, "%d\n", getpid()) > 0;
    if (file)
        written &= fclose(file) == 0;
    if (written && rename(temporary, path) == 0)
        return true;
    log_error("cannot write the pid file %s: %s", path, strerror(errno));
    unlink(temporary);
    return false;
}
