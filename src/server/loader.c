#include "server/loader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "coro/coro.h"
#include "script/interrupt.h"
#include "script/script.h"
#include "server/sources.h"
#include "shared/open.h"

/* A slice takes as long as what came before it, so that half of the time is left to either. */
enum { SLICE_MIN_US = 200, SLICE_MAX_US = 2000 };

void loader_init(struct loader *loader, struct io *io, const char *path)
{
    *loader = (struct loader){.io = io, .path = path};
}

static struct site *load(struct loader *loader, uint64_t generation, int fd,
                         void (*pause)(void *arg), char **error)
{
    struct sources sources;
    int result = sources_open(&sources, fd);
    if (result < 0) {
        *error = strdup(strerror(-result));
        return NULL;
    }
    struct script_options options = {.io = loader->io,
                                     .generation = generation,
                                     .sources = sources.files,
                                     .source_count = sources.count,
                                     .pause = pause,
                                     .pause_arg = loader};
    struct site *site = script_load_site(loader->path, &options, error);
    sources_close(&sources);
    shared_forget_offers();
    if (site)
        log_debug("generation %llu is loaded (pid %d)", (unsigned long long)generation, getpid());
    return site;
}

struct site *loader_load(struct loader *loader, uint64_t generation, int sources, char **error)
{
    return load(loader, generation, sources, NULL, error);
}

static void pause_if_due(void *arg)
{
    struct loader *loader = arg;
    int64_t now_us = clock_now_us();
    if (now_us < loader->until_us)
        return;
    int error = errno; /* of what the script has just called, perhaps */
    loader->paused_us = now_us;
    interrupt_put_aside();
    coro_job_pause();
    interrupt_take_up();
    errno = error;
}

static void load_in_slices(void *arg)
{
    struct loader *loader = arg;
    loader->site = load(loader, loader->generation, loader->sources, pause_if_due, &loader->error);
}

void loader_begin(struct loader *loader, uint64_t generation, int sources)
{
    loader->busy = true;
    loader->generation = generation;
    loader->sources = sources;
    loader->site = NULL;
    loader->error = NULL;
    loader->paused_us = clock_now_us();
    loader->job = coro_job_create(load_in_slices, loader);
    if (!loader->job)
        loader->site = loader_load(loader, generation, sources, &loader->error);
}

static int64_t slice_us(int64_t others_us)
{
    if (others_us < SLICE_MIN_US)
        return SLICE_MIN_US;
    return others_us < SLICE_MAX_US ? others_us : SLICE_MAX_US;
}

bool loader_step(struct loader *loader, struct site **site, char **error)
{
    int64_t now_us = clock_now_us();
    loader->until_us = now_us + slice_us(now_us - loader->paused_us);
    if (loader->job && !coro_job_step(loader->job))
        return false;
    loader->job = NULL;
    loader->busy = false;
    *site = loader->site;
    *error = loader->error;
    return true;
}

void loader_drop(struct loader *loader)
{
    loader->until_us = INT64_MAX;
    if (loader->job)
        coro_job_step(loader->job);
    loader->job = NULL;
    loader->busy = false;
    if (loader->site)
        site_release(loader->site);
    free(loader->error);
}
