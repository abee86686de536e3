#include "server/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"

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

void privileges_drop(void)
{
    if (wanted.user[0] && !become_wanted()) {
        log_error("cannot become the user %s: %s", wanted.user, strerror(errno));
        _exit(1);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        log_warn("cannot rule out that more rights are gained: %s", strerror(errno));
}
