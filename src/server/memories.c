#include "server/memories.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/counters.h"
#include "base/log.h"
#include "shared/open.h"

enum { COUNTERS_LEFT_MAX = 16 };

#define VARIABLE "MONOLAKE_SHARED" /* "descriptor:descriptor:..." */

void memory_format(const struct shared_spec *spec, char text[MEMORY_TEXT_MAX])
{
    snprintf(text, MEMORY_TEXT_MAX, "%" PRIu64 " %d %s", spec->size, spec->evicts, spec->name);
}

static bool parse(const char *text, struct shared_spec *spec)
{
    int evicts;
    int at = 0;
    *spec = (struct shared_spec){.size = 0};
    if (sscanf(text, "%" SCNu64 " %d %n", &spec->size, &evicts, &at) != 2 || !at)
        return false;
    spec->evicts = evicts;
    snprintf(spec->name, sizeof(spec->name), "%s", text + at);
    return spec->size >= SHARED_SIZE_MIN && spec->size <= SHARED_SIZE_MAX;
}

static struct memory *find(struct memories *memories, const struct shared_spec *spec)
{
    for (unsigned i = 0; i < memories->count; i++) {
        struct memory *memory = &memories->items[i];
        if (strcmp(memory->spec.name, spec->name) == 0 && memory->spec.size == spec->size &&
            memory->spec.evicts == spec->evicts)
            return memory;
    }
    return NULL;
}

static const char *make(struct memories *memories, const struct shared_spec *spec)
{
    if (memories->count == MEMORIES_MAX)
        return "there are too many of them";
    int fd = shared_create(spec);
    if (fd < 0)
        return strerror(-fd);
    memories->items[memories->count++] =
        (struct memory){.spec = *spec, .fd = fd, .wanted = true, .fresh = true};
    return NULL;
}

bool memories_want(struct memories *memories, const char *const *texts, unsigned count, char *error,
                   size_t size)
{
    for (unsigned i = 0; i < memories->count; i++)
        memories->items[i].wanted = memories->items[i].fresh = false;
    for (unsigned i = 0; i < count; i++) {
        struct shared_spec spec;
        const char *why = parse(texts[i], &spec) ? NULL : "the probe did not tell of it rightly";
        struct memory *memory = why ? NULL : find(memories, &spec);
        if (memory)
            memory->wanted = true;
        else if (!why)
            why = make(memories, &spec);
        if (why) {
            snprintf(error, size, "cannot make the shared dictionary \"%s\": %s", spec.name, why);
            return false;
        }
    }
    return true;
}

static void close_those(struct memories *memories, bool (*unwanted)(const struct memory *memory))
{
    unsigned kept = 0;
    for (unsigned i = 0; i < memories->count; i++) {
        const struct memory *memory = &memories->items[i];
        if (unwanted(memory))
            close(memory->fd);
        else
            memories->items[kept++] = *memory;
    }
    memories->count = kept;
}

static bool is_fresh(const struct memory *memory)
{
    return memory->fresh;
}

static bool is_unwanted(const struct memory *memory)
{
    return !memory->wanted;
}

static bool any(const struct memory *memory)
{
    (void)memory;
    return true;
}

void memories_drop_fresh(struct memories *memories)
{
    close_those(memories, is_fresh);
}

void memories_settle(struct memories *memories)
{
    close_those(memories, is_unwanted);
    for (unsigned i = 0; i < memories->count; i++)
        memories->items[i].fresh = false;
}

void memories_close(struct memories *memories)
{
    close_those(memories, any);
}

/* --- Workers ---------------------------------------------------------------------------------- */

void memories_offer(struct memories *memories)
{
    shared_only_offers();
    for (unsigned i = 0; i < memories->count; i++)
        shared_offer(memories->items[i].fd);
    memories->count = 0;
}

/* --- Another program -------------------------------------------------------------------------- */

void memories_leave(const struct memories *memories)
{
    char text[(MEMORIES_MAX + COUNTERS_LEFT_MAX) * 12] = "";
    int fds[MEMORIES_MAX + COUNTERS_LEFT_MAX];
    unsigned count = counters_leave_behind(fds, COUNTERS_LEFT_MAX);
    size_t len = 0;
    for (unsigned i = 0; i < memories->count; i++)
        fds[count++] = memories->items[i].fd;
    for (unsigned i = 0; i < count; i++) {
        fcntl(fds[i], F_SETFD, 0);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%d:", fds[i]);
    }
    setenv(VARIABLE, text, 1);
}

static void take(struct memories *memories, int fd)
{
    struct memory memory = {.fd = fd};
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return; /* there is no such descriptor */
    int result = shared_inspect(fd, &memory.spec);
    if (result == 0 && memories->count < MEMORIES_MAX) {
        memories->items[memories->count++] = memory;
        return;
    }
    bool counters = result == -EPROTO;
    if (counters)
        result = counters_inherit(fd);
    if (result == 0 && counters)
        return;
    log_warn("%s of the program before this one cannot be used (%s): this one begins anew",
             counters ? "what was counted" : "a shared dictionary",
             result == -EPROTONOSUPPORT ? "it has another layout" : "there are too many");
    close(fd);
}

void memories_read(struct memories *memories)
{
    char *text = getenv(VARIABLE);
    if (!text)
        return;
    for (char *end; *text; text = end) {
        long fd = strtol(text, &end, 10);
        if (end == text || *end != ':')
            break;
        end++;
        if (fd > STDERR_FILENO && fd <= INT32_MAX)
            take(memories, (int)fd);
    }
    unsetenv(VARIABLE);
}
