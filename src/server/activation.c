#include "server/activation.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

enum { FIRST_FD = 3, SOCKETS_MAX = 256 };

struct lent {
    int fd;
    struct address address;
    bool used;
};

static struct lent lents[SOCKETS_MAX];
static unsigned lent_count;

/* The value of a variable that is a number and nothing else, or -1. */
static long number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return -1;
    long value = strtol(text, &end, 10);
    return *end ? -1 : value;
}

static bool listens_for_streams(int fd)
{
    int type = 0, listening = 0;
    socklen_t len = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
        return false;
    len = sizeof(listening);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

/* Workers and what they start shall not have it by accident, and nobody may wait in accept. */
static void take(int fd)
{
    struct lent *lent = &lents[lent_count];
    lent->address.len = sizeof(lent->address.local);
    if (!listens_for_streams(fd) || getsockname(fd, &lent->address.any, &lent->address.len) != 0) {
        log_warn("descriptor %d of the service manager is no socket that listens for streams: it "
                 "is not used",
                 fd);
        return;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    lent->fd = fd;
    lent_count++;
}

void activation_read(void)
{
    long count = number("LISTEN_FDS");
    if (number("LISTEN_PID") == getpid())
        for (int fd = FIRST_FD; fd < FIRST_FD + count && lent_count < SOCKETS_MAX; fd++)
            take(fd);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

int activation_find(const struct address *address)
{
    for (unsigned i = 0; i < lent_count; i++) {
        if (!address_equal(&lents[i].address, address))
            continue;
        lents[i].used = true;
        return lents[i].fd;
    }
    return -1;
}

void activation_warn_unused(void)
{
    for (unsigned i = 0; i < lent_count; i++) {
        char text[ADDRESS_TEXT_MAX];
        if (lents[i].used)
            continue;
        address_format(&lents[i].address, text);
        log_warn("the service manager listens on %s, and the site does not: whoever connects there "
                 "waits in vain",
                 text);
    }
}
