#include "proxy/site.h"

#include <assert.h>
#include <unistd.h>

#include "base/log.h"
#include "coro/coro.h"

void site_retain(struct site *site)
{
    site->users++;
}

/* Closing a Lua state runs finalizers, so it must happen on the main stack. */
static void destroy(void *arg)
{
    struct site *site = arg;
    log_debug("generation %llu is freed (pid %d)", (unsigned long long)site->generation, getpid());
    site->destroy(site);
}

void site_release(struct site *site)
{
    assert(site->users > 0);
    if (--site->users == 0)
        coro_on_main(destroy, site);
}
