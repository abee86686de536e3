#include "server/loader.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "script/script.h"
#include "server/sources.h"
#include "shared/open.h"

void loader_init(struct loader *loader, struct io *io, const char *path)
{
    *loader = (struct loader){.io = io, .path = path};
    background_init(&loader->background);
}

/* --- The end of a site ------------------------------------------------------------------------ */

struct closing {
    struct background_job job; /* first */
    struct background *background;
    struct site *site;
};

static void close_in_slices(struct background_job *job)
{
    struct closing *closing = (struct closing *)job;
    script_close_site(closing->site, background_pause, closing->background);
    free(closing);
}

/* May be called in a job itself. */
static void close_later(struct site *site)
{
    struct background *background = site->destroy_arg;
    struct closing *closing = malloc(sizeof(*closing));
    if (!closing) {
        script_close_site(site, NULL, NULL);
        return;
    }
    *closing = (struct closing){.job.fn = close_in_slices, .background = background, .site = site};
    background_add(background, &closing->job);
}

/* --- Loading ---------------------------------------------------------------------------------- */

struct site *loader_load(struct loader *loader, uint64_t generation, int sources, char **error)
{
    struct sources files;
    int result = sources_open(&files, sources);
    if (result < 0) {
        *error = strdup(strerror(-result));
        return NULL;
    }
    struct script_options options = {.io = loader->io,
                                     .generation = generation,
                                     .sources = files.files,
                                     .source_count = files.count,
                                     .pause = background_pause,
                                     .pause_arg = &loader->background};
    struct site *site = script_load_site(loader->path, &options, error);
    sources_close(&files);
    shared_forget_offers();
    if (!site)
        return NULL;
    site->destroy = close_later;
    site->destroy_arg = &loader->background;
    log_debug("generation %llu is loaded (pid %d)", (unsigned long long)generation, getpid());
    return site;
}

static void load_in_slices(struct background_job *job)
{
    struct loader *loader = container_of(job, struct loader, job);
    loader->site = loader_load(loader, loader->generation, loader->sources, &loader->error);
    loader->state = LOADER_DONE;
}

void loader_begin(struct loader *loader, uint64_t generation, int sources)
{
    loader->state = LOADER_BUSY;
    loader->generation = generation;
    loader->sources = sources;
    loader->error = NULL;
    loader->job.fn = load_in_slices;
    background_add(&loader->background, &loader->job);
}

struct site *loader_take(struct loader *loader, char **error)
{
    loader->state = LOADER_IDLE;
    *error = loader->error;
    return loader->site;
}

void loader_drop(struct loader *loader)
{
    char *error = NULL;
    if (loader->state == LOADER_IDLE)
        return;
    background_finish(&loader->background);
    struct site *site = loader_take(loader, &error);
    if (site)
        site_release(site);
    free(error);
}
