/* Paths in normal form: no segment is "." or "..", none but the last is empty, and the rest from
 * any segment on reads the same again. */
#include "fuzz.h"

#include "proxy/route_path.h"

#include <assert.h>
#include <string.h>

static void check_segments(const struct route_path *path)
{
    assert(path->count > 0 && path->count <= ROUTE_SEGMENTS_MAX);
    for (unsigned i = 0; i < path->count; i++) {
        struct slice segment = path->segments[i];
        assert(!slice_equal(segment, SLICE(".")) && !slice_equal(segment, SLICE("..")));
        assert(segment.len > 0 || i == path->count - 1);
    }
}

/* A "%" that an escape made would be read as the start of another one. */
static bool has_percent(const struct route_path *path, unsigned from)
{
    for (unsigned i = from; i < path->count; i++)
        if (path->segments[i].len && memchr(path->segments[i].ptr, '%', path->segments[i].len))
            return true;
    return false;
}

static void check_rest(const struct route_path *path, unsigned from, struct arena *arena)
{
    struct route_path again;
    struct slice rest = route_path_rest(path, from, arena);
    assert(rest.ptr);
    struct slice whole = arena_printf(arena, "/%.*s", (int)rest.len, rest.ptr);
    if (has_percent(path, from) || memchr(rest.ptr, '\0', rest.len))
        return;
    assert(route_path_split(&again, whole, arena) == 0);
    assert(again.count == path->count - from);
    for (unsigned i = 0; i < again.count; i++)
        assert(slice_equal(again.segments[i], path->segments[from + i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct route_path path;
    if (size > 16384)
        return 0;
    arena_init(&arena);
    if (route_path_split(&path, slice_of((const char *)data, size), &arena) == 0) {
        check_segments(&path);
        for (unsigned i = 0; i < path.count; i++)
            check_rest(&path, i, &arena);
        assert(route_path_rest(&path, path.count, &arena).len == 0);
    }
    arena_fini(&arena);
    return 0;
}
