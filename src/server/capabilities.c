#include "server/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CAPABILITIES_MAX = 64, WORDS = _LINUX_CAPABILITY_U32S_3 };

void capabilities_bound(uint64_t kept)
{
    for (int i = 0; i < CAPABILITIES_MAX && prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
        if (!(kept & CAPABILITY(i)))
            prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
}

/* What is ambient needs to be both permitted and inheritable: the kernel sees to that. */
int capabilities_keep(uint64_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[WORDS];
    if (syscall(SYS_capget, &header, sets) != 0)
        return -errno;
    bool loses = false;
    for (unsigned i = 0; i < WORDS; i++) {
        uint32_t word = (uint32_t)(kept >> (32 * i));
        loses |= ((sets[i].permitted | sets[i].inheritable) & ~word) != 0;
        sets[i].effective &= word;
        sets[i].permitted &= word;
        sets[i].inheritable &= word;
    }
    return !loses || syscall(SYS_capset, &header, sets) == 0 ? 0 : -errno;
}
