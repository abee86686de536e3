/* Paths in normal form: no segment is "." or "..", none but the last is empty, and the rest from
 * any segment on reads the same again. */
#include "fuzz.h"

#include "proxy/route_path.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct route_path path;
    if (size > 16384)
        return 0;
    arena_init(&arena);
    if (route_path_split(&path, slice_of((const char *)data, size), &arena) == 0) {
        assert(path.count <= ROUTE_SEGMENTS_MAX);
        for (unsigned i = 0; i < path.count; i++) {
            struct slice segment = path.segments[i];
            assert(!slice_equal(segment, SLICE(".")) && !slice_equal(segment, SLICE("..")));
            assert(segment.len > 0 || i == path.count - 1);
            assert(!segment.len || !memchr(segment.ptr, '\0', segment.len) ||
                   memchr(data, 0, size));
            struct slice rest = route_path_rest(&path, i, &arena);
            assert(rest.ptr && rest.len >= segment.len);
        }
    }
    arena_fini(&arena);
    return 0;
}
