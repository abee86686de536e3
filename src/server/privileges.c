#include "server/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "server/capabilities.h"

/* What io_uring takes of memory is not counted then. Newer kernels count it, for all processes of a
 * user together, towards the bound of locked memory, and a dozen workers would reach that. */
#define RING_NEEDS CAPABILITY(CAP_IPC_LOCK)

/* For ports below 1024; for the pid file, local sockets and the site in others' directories; for
 * the filter that lets listeners fall silent before they close, which some kernels ask it for. */
#define SUPERVISOR_NEEDS                                                                           \
    (CAPABILITY(CAP_NET_BIND_SERVICE) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_NET_ADMIN) | \
     RING_NEEDS)

/* To start processes of another user with less than it has, and to signal them. */
#define SUPERVISOR_OF_OTHERS_NEEDS                                                                 \
    (CAPABILITY(CAP_SETUID) | CAPABILITY(CAP_SETGID) | CAPABILITY(CAP_KILL))

/* What root expects of root: that it reads and writes all files. It owns most of them anyway. */
#define ROOT_NEEDS (CAPABILITY(CAP_DAC_OVERRIDE) | RING_NEEDS)

enum { NAME_MAX_BYTES = 64 };

static struct {
    char user[NAME_MAX_BYTES]; /* "": nobody else */
    uid_t uid;
    gid_t gid;
} wanted;

bool privileges_set(const char *text, const char **why)
{
    size_t len = strcspn(text, ":");
    if (len == 0 || len >= sizeof(wanted.user)) {
        *why = "the name of a user";
        return false;
    }
    memcpy(wanted.user, text, len);
    const struct passwd *user = getpwnam(wanted.user);
    const struct group *group = text[len] ? getgrnam(text + len + 1) : NULL;
    if (!user)
        *why = "the name of a user here";
    else if (text[len] && !group)
        *why = "the name of a group here";
    else if (geteuid() != 0 && geteuid() != user->pw_uid)
        *why = "a user that only root may become";
    else {
        wanted.uid = user->pw_uid;
        wanted.gid = group ? group->gr_gid : user->pw_gid;
        return true;
    }
    return false;
}

static bool become_wanted(void)
{
    if (geteuid() != 0) /* it is that user already: see privileges_set */
        return true;
    return initgroups(wanted.user, wanted.gid) == 0 &&
           setresgid(wanted.gid, wanted.gid, wanted.gid) == 0 &&
           setresuid(wanted.uid, wanted.uid, wanted.uid) == 0;
}

/* Other processes of its user may not look into it, and no core file holds its keys. */
static void be_private(void)
{
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        log_warn("cannot keep this process's memory from others: %s", strerror(errno));
}

static void keep(uint64_t kept)
{
    int result = capabilities_keep(kept);
    if (result < 0) {
        log_error("cannot give up capabilities: %s", strerror(-result));
        _exit(1);
    }
}

/* For workers of another user, which have no capability for it (RING_NEEDS). */
static void allow_locked_memory(void)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
}

/* Workers can give up theirs only if the supervisor may still say so: CAP_SETPCAP. */
void privileges_limit(void)
{
    uint64_t kept = SUPERVISOR_NEEDS | (wanted.user[0] ? SUPERVISOR_OF_OTHERS_NEEDS : 0);
    kept |= CAPABILITY(CAP_SETPCAP);
    allow_locked_memory();
    capabilities_bound(kept);
    keep(kept);
    be_private();
}

void privileges_drop(void)
{
    bool stays_root = geteuid() == 0 && (!wanted.user[0] || wanted.uid == 0);
    uint64_t kept = stays_root ? ROOT_NEEDS : 0;
    capabilities_bound(kept);
    if (wanted.user[0] && !become_wanted()) {
        log_error("cannot become the user %s: %s", wanted.user, strerror(errno));
        _exit(1);
    }
    keep(kept);
    be_private(); /* which another user's process is not by itself */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        log_warn("cannot rule out that more rights are gained: %s", strerror(errno));
}
