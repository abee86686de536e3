#include "proxy/site.h"

#include <assert.h>

void site_retain(struct site *site)
{
    site->users++;
}

void site_release(struct site *site)
{
    assert(site->users > 0);
    if (--site->users == 0)
        site->destroy(site);
}
