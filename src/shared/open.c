#include "shared/open.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/list.h"

struct opened {
    struct list link;
    struct shared_dict *dict; /* owned */
    ino_t memory;             /* two of one name may be open: that of an older generation, too */
    uint32_t users;
};

struct offer {
    struct list link;
    struct shared_spec spec;
    int fd; /* owned */
};

static struct list all = {&all, &all};
static struct list offers = {&offers, &offers};
static bool only_offers;
static bool open_ones_offered;

void shared_only_offers(void)
{
    only_offers = true;
}

static bool same(const struct shared_spec *a, const struct shared_spec *b)
{
    return strcmp(a->name, b->name) == 0 && a->size == b->size && a->evicts == b->evicts;
}

void shared_offer(int fd)
{
    struct offer *offer = malloc(sizeof(*offer));
    if (!offer || shared_inspect(fd, &offer->spec) != 0) {
        free(offer);
        close(fd);
        return; /* opening it fails, and says so */
    }
    offer->fd = fd;
    list_push_back(&offers, &offer->link);
}

void shared_offer_open(void)
{
    open_ones_offered = true;
}

void shared_forget_offers(void)
{
    open_ones_offered = false;
    for (struct list *node = offers.next, *next; node != &offers; node = next) {
        struct offer *offer = container_of(node, struct offer, link);
        next = node->next;
        close(offer->fd);
        free(offer);
    }
    list_init(&offers);
}

static const struct offer *offer_of(const struct shared_spec *spec)
{
    list_for_each(node, &offers)
    {
        const struct offer *offer = container_of(node, struct offer, link);
        if (same(&offer->spec, spec))
            return offer;
    }
    return NULL;
}

/* One that is open already: with an offer, that very memory, else that of the last generation. */
static struct opened *find(const struct shared_spec *spec, const ino_t *memory)
{
    for (struct list *node = all.prev; node != &all; node = node->prev) {
        struct opened *opened = container_of(node, struct opened, link);
        if (same(shared_spec_of(opened->dict), spec) && (!memory || opened->memory == *memory))
            return opened;
    }
    return NULL;
}

static int open_memory(int fd, ino_t memory, struct opened **out)
{
    struct opened *opened = calloc(1, sizeof(*opened));
    if (!opened)
        return -ENOMEM;
    opened->dict = shared_map(fd);
    if (!opened->dict) {
        int error = -errno;
        free(opened);
        return error;
    }
    opened->memory = memory;
    list_push_back(&all, &opened->link);
    *out = opened;
    return 0;
}

/* Of this process alone; it stays, as one does in the program. */
static int open_own(const struct shared_spec *spec, struct opened **out)
{
    *out = find(spec, NULL);
    if (*out)
        return 0;
    int fd = shared_create(spec);
    if (fd < 0)
        return fd;
    int result = open_memory(fd, 0, out);
    close(fd);
    if (result < 0)
        return result;
    assert(*out);
    (*out)->users++;
    return 0;
}

static int open_offered(const struct shared_spec *spec, struct opened **out)
{
    const struct offer *offer = offer_of(spec);
    struct stat status;
    if (!offer) {
        *out = open_ones_offered ? find(spec, NULL) : NULL;
        return *out ? 0 : -ENOENT;
    }
    if (fstat(offer->fd, &status) != 0)
        return -errno;
    *out = find(spec, &status.st_ino);
    return *out ? 0 : open_memory(offer->fd, status.st_ino, out);
}

int shared_open(const struct shared_spec *spec, struct shared_dict **out)
{
    struct opened *opened = NULL;
    int result = only_offers ? open_offered(spec, &opened) : open_own(spec, &opened);
    if (result < 0)
        return result;
    assert(opened);
    opened->users++;
    *out = opened->dict;
    return 0;
}

void shared_close(struct shared_dict *dict)
{
    list_for_each(node, &all)
    {
        struct opened *opened = container_of(node, struct opened, link);
        if (opened->dict != dict)
            continue;
        if (--opened->users == 0) {
            list_remove(node);
            shared_unmap(dict);
            free(opened);
        }
        return;
    }
}

void shared_each(void (*fn)(const struct shared_spec *spec, void *arg), void *arg)
{
    list_for_each(node, &all)
        fn(shared_spec_of(container_of(node, struct opened, link)->dict), arg);
}
