#include "coro/stack.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13: a guard without a mapping of its own */
#endif

#ifdef __SANITIZE_ADDRESS__
#define STACK_BYTES (512 * 1024) /* instrumented frames are several times larger */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STACK_BYTES (512 * 1024)
#endif
#endif
#ifndef STACK_BYTES
#define STACK_BYTES (64 * 1024)
#endif

enum {
    GUARD_BYTES = 4096,
    CACHED_MAX = 1024,
    DRIED_MAX = 64, /* at once: each takes a system call */
};

static struct stack cached[CACHED_MAX];
static size_t cached_count;
static size_t dry_count;    /* the first of them, which hold no memory */
static bool no_light_guard; /* the kernel has no MADV_GUARD_INSTALL */

static int guard(char *mapping)
{
    if (!no_light_guard) {
        if (madvise(mapping, GUARD_BYTES, MADV_GUARD_INSTALL) == 0)
            return 0;
        no_light_guard = true;
    }
    return mprotect(mapping, GUARD_BYTES, PROT_NONE);
}

int stack_map(struct stack *stack, size_t bytes)
{
    char *mapping = mmap(NULL, GUARD_BYTES + bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapping == MAP_FAILED)
        return -ENOMEM;
    if (guard(mapping) != 0) {
        munmap(mapping, GUARD_BYTES + bytes);
        return -ENOMEM;
    }
    *stack = (struct stack){mapping + GUARD_BYTES, bytes};
    return 0;
}

int stack_get(struct stack *stack)
{
    if (!cached_count)
        return stack_map(stack, STACK_BYTES);
    *stack = cached[--cached_count];
    if (cached_count < dry_count)
        dry_count = cached_count;
    return 0;
}

static void unmap(struct stack *stack)
{
    munmap(stack->base - GUARD_BYTES, GUARD_BYTES + stack->bytes);
}

void stack_put(struct stack *stack)
{
    if (stack->bytes == STACK_BYTES && cached_count < CACHED_MAX)
        cached[cached_count++] = *stack;
    else
        unmap(stack);
}

void stack_dry_cached(void)
{
    size_t count = (cached_count - dry_count + 1) / 2;
    for (size_t i = 0; i < count && i < DRIED_MAX; i++, dry_count++)
        madvise(cached[dry_count].base, cached[dry_count].bytes, MADV_DONTNEED);
}

size_t stack_cached(void)
{
    return cached_count;
}

void stack_drop_cached(void)
{
    while (cached_count)
        unmap(&cached[--cached_count]);
    dry_count = 0;
}
