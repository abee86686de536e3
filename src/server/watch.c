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

void watch_clear(struct watch *watch)
{
    for (unsigned i = 0; i < watch->count; i++)
        free(watch->files[i].path);
    free(watch->files);
    watch->files = NULL;
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

void watch_add(struct watch *watch, const char *file)
{
    if (watch->fd < 0)
        return;
    for (unsigned i = 0; i < watch->count; i++)
        if (strcmp(watch->files[i].path, file) == 0)
            return;
    struct watched_file *grown = realloc(watch->files, (watch->count + 1) * sizeof(*grown));
    if (!grown)
        return;
    watch->files = grown;
    char *path = strdup(file);
    if (path)
        grown[watch->count++] =
            (struct watched_file){.path = path, .directory = watch_directory(watch, file)};
}

static bool concerns(const struct watch *watch, const struct inotify_event *event)
{
    for (unsigned i = 0; i < watch->count; i++) {
        const struct watched_file *file = &watch->files[i];
        const char *slash = strrchr(file->path, '/');
        const char *name = slash ? slash + 1 : file->path;
        if (event->wd == file->directory && event->len && strcmp(event->name, name) == 0)
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
    watch_clear(watch);
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}
