#include "server/watch.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

int watch_init(struct watch *watch)
{
    *watch = (struct watch){.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
    return watch->fd < 0 ? -errno : 0;
}

static void forget_files(struct watch *watch)
{
    for (unsigned i = 0; i < watch->count; i++)
        free(watch->files[i]);
    free(watch->files);
    free(watch->directories);
    watch->files = NULL;
    watch->directories = NULL;
    watch->count = 0;
}

static int watch_directory(struct watch *watch, const char *file)
{
    char *copy = strdup(file);
    if (!copy)
        return -1;
    int descriptor = inotify_add_watch(watch->fd, dirname(copy),
                                       IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE);
    free(copy);
    return descriptor;
}

void watch_set(struct watch *watch, char *const *files, unsigned count)
{
    if (watch->fd < 0)
        return;
    forget_files(watch);
    watch->files = calloc(count, sizeof(*watch->files));
    watch->directories = calloc(count, sizeof(*watch->directories));
    if (!watch->files || !watch->directories)
        return;
    for (unsigned i = 0; i < count; i++) {
        watch->files[i] = strdup(files[i]);
        if (!watch->files[i])
            return;
        watch->directories[i] = watch_directory(watch, files[i]);
        watch->count++;
    }
}

static bool concerns(const struct watch *watch, const struct inotify_event *event)
{
    for (unsigned i = 0; i < watch->count; i++) {
        const char *slash = strrchr(watch->files[i], '/');
        const char *name = slash ? slash + 1 : watch->files[i];
        if (event->wd == watch->directories[i] && event->len && strcmp(event->name, name) == 0)
            return true;
    }
    return false;
}

bool watch_changed(struct watch *watch)
{
    _Alignas(struct inotify_event) char buffer[16384];
    bool changed = false;
    ssize_t got;
    while ((got = read(watch->fd, buffer, sizeof(buffer))) > 0) {
        for (char *at = buffer; at < buffer + got;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            changed |= concerns(watch, event);
            at += sizeof(*event) + event->len;
        }
    }
    return changed;
}

void watch_fini(struct watch *watch)
{
    forget_files(watch);
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}
