#include "server/bounds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "net/listener.h"
#include "server/activation.h"
#include "server/inherit.h"
#include "server/worker.h"

static struct bound *find(struct bounds *bounds, const char *key)
{
    for (unsigned i = 0; i < bounds->count; i++)
        if (strcmp(bounds->items[i]->key, key) == 0)
            return bounds->items[i];
    return NULL;
}

static bool same_address_twice(const char *const *addresses, unsigned index)
{
    struct address address;
    bool datagrams;
    const char *why;
    if (listener_parse(slice_from_cstr(addresses[index]), &address, &datagrams, &why) != 0 ||
        (address.any.sa_family != AF_UNIX && address_port(&address) == 0))
        return false;
    for (unsigned i = 0; i < index; i++)
        if (strcmp(addresses[i], addresses[index]) == 0)
            return true;
    return false;
}

/* One socket for all workers, up to `count` times: its queue is everybody's. */
static int duplicate(struct bound *bound, int fd, unsigned have, unsigned count, const char **why)
{
    for (unsigned i = have; i < count; i++) {
        bound->fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (bound->fds[i] >= 0)
            continue;
        *why = strerror(errno);
        listener_close(bound->fds + have, i - have);
        return -1;
    }
    return 0;
}

/* Takes the sockets of the program before this one or of the service manager, or opens them; `*why`
 * tells of a failure. */
static bool open_sockets(struct bound *bound, const char *text, const char *key, unsigned workers,
                         const char **why)
{
    if (listener_parse(slice_from_cstr(text), &bound->address, &bound->datagrams, why) != 0)
        return false;
    bound->inherited = inherit_take(key, &bound->address, bound->fds, workers, &bound->lent);
    if (bound->inherited && bound->lent)
        return duplicate(bound, bound->fds[0], bound->inherited, workers, why) == 0;
    if (bound->inherited)
        return listener_extend(&bound->address, bound->datagrams, bound->fds, bound->inherited,
                               workers, why) == 0;
    int fd = bound->datagrams ? -1 : activation_find(&bound->address);
    bound->lent = fd >= 0;
    if (bound->lent)
        return duplicate(bound, fd, 0, workers, why) == 0;
    return listener_open(&bound->address, bound->datagrams, bound->fds, workers, why) == 0;
}

static bool bind_address(struct bounds *bounds, const char *text, const char *key, char *error,
                         size_t size)
{
    const char *why = "out of memory";
    struct bound *bound = calloc(1, sizeof(*bound));
    struct bound **grown = realloc(bounds->items, (bounds->count + 1) * sizeof(*grown));
    if (grown)
        bounds->items = grown;
    if (!bound || !grown || !open_sockets(bound, text, key, bounds->workers, &why)) {
        snprintf(error, size, "cannot listen on %s: %s", text, why);
        free(bound);
        return false;
    }
    snprintf(bound->key, sizeof(bound->key), "%s", key);
    bound->wanted = bound->fresh = true;
    grown[bounds->count++] = bound;
    return true;
}

bool bounds_want(struct bounds *bounds, const char *const *addresses, unsigned count, char *error,
                 size_t size)
{
    for (unsigned i = 0; i < bounds->count; i++)
        bounds->items[i]->wanted = bounds->items[i]->fresh = false;
    if (count > LISTENERS_MAX) {
        snprintf(error, size, "more than %d addresses", LISTENERS_MAX);
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        char key[LISTENER_KEY_MAX];
        if (same_address_twice(addresses, i)) {
            snprintf(error, size, "%s is listened on twice", addresses[i]);
            return false;
        }
        listener_key(addresses, i, key, sizeof(key));
        struct bound *bound = find(bounds, key);
        if (bound)
            bound->wanted = true;
        else if (!bind_address(bounds, addresses[i], key, error, size))
            return false;
    }
    return true;
}

static void quiesce(struct bound *bound, unsigned workers)
{
    /* Whoever is queued on a socket of the service manager's waits for the next program. */
    if (!bound->quiet && !bound->lent)
        listener_quiesce(&bound->address, bound->datagrams, bound->fds, workers);
    bound->quiet = true;
}

static void close_those(struct bounds *bounds, bool (*unwanted)(const struct bound *bound))
{
    unsigned kept = 0;
    for (unsigned i = 0; i < bounds->count; i++) {
        struct bound *bound = bounds->items[i];
        if (!unwanted(bound)) {
            bounds->items[kept++] = bound;
            continue;
        }
        quiesce(bound, bounds->workers);
        listener_close(bound->fds, bounds->workers);
        free(bound);
    }
    bounds->count = kept;
}

static bool is_fresh(const struct bound *bound)
{
    return bound->fresh;
}

static bool is_unwanted(const struct bound *bound)
{
    return !bound->wanted;
}

static bool any(const struct bound *bound)
{
    (void)bound;
    return true;
}

static void quiesce_those(struct bounds *bounds, bool (*unwanted)(const struct bound *bound))
{
    for (unsigned i = 0; i < bounds->count; i++)
        if (unwanted(bounds->items[i]))
            quiesce(bounds->items[i], bounds->workers);
}

void bounds_quiesce_unwanted(struct bounds *bounds)
{
    quiesce_those(bounds, is_unwanted);
}

void bounds_quiesce(struct bounds *bounds)
{
    quiesce_those(bounds, any);
}

void bounds_adopted(struct bounds *bounds, const char *key, unsigned count)
{
    for (unsigned i = 0; i < bounds->count; i++)
        if (!key || strcmp(bounds->items[i]->key, key) == 0)
            bounds->items[i]->adopted = count;
}

void bounds_hand_over(struct bounds *bounds)
{
    for (unsigned i = 0; i < bounds->count; i++) {
        struct bound *bound = bounds->items[i];
        if (!bound->adopted)
            continue;
        /* A local socket is one, however many hold it, and so is one that was lent. */
        bool one = bound->lent || bound->address.any.sa_family == AF_UNIX;
        if (!one && bound->adopted < bounds->workers)
            listener_quiesce(&bound->address, bound->datagrams, bound->fds + bound->adopted,
                             bounds->workers - bound->adopted);
        bound->quiet = true;
    }
    quiesce_those(bounds, any);
}

void bounds_drop_fresh(struct bounds *bounds)
{
    close_those(bounds, is_fresh);
}

void bounds_settle(struct bounds *bounds)
{
    close_those(bounds, is_unwanted);
    for (unsigned i = 0; i < bounds->count; i++)
        bounds->items[i]->fresh = false;
}

void bounds_announce(struct bounds *bounds)
{
    for (unsigned i = 0; i < bounds->count; i++) {
        struct bound *bound = bounds->items[i];
        char text[ADDRESS_TEXT_MAX], line[ADDRESS_TEXT_MAX + 64];
        if (bound->announced)
            continue;
        bound->announced = true;
        address_format(&bound->address, text);
        int len = snprintf(line, sizeof(line), "listening on %s%s\n",
                           bound->datagrams ? listener_udp_prefix.ptr : "", text);
        output_write(&output_standard, line, (size_t)len); /* nobody's to wait for */
    }
}

void bounds_close(struct bounds *bounds)
{
    close_those(bounds, any);
    free(bounds->items);
    bounds->items = NULL;
}
