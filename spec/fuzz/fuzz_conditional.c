/* Conditions and ranges: a range is never outside of what there is. The first byte picks the field.
 */
#include "fuzz.h"

#include "http/conditional.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {
        "range",         "if-range",          "if-match",
        "if-none-match", "if-modified-since", "if-unmodified-since"};
    struct arena arena;
    if (size < 1)
        return 0;
    arena_init(&arena);
    struct request request = {.arena = &arena, .method = METHOD_GET};
    headers_init(&request.headers, &arena);
    struct slice value = slice_of((const char *)data + 1, size - 1);
    headers_add(&request.headers, slice_from_cstr(names[data[0] % 6]), value);
    if (data[0] % 6 != 0)
        headers_add(&request.headers, SLICE("range"), SLICE("bytes=5-20"));
    struct validators validators = {.etag = SLICE("\"tag\""), .modified = 1577934245, .size = 1000};
    struct byte_range range = {0, 0};
    if (conditional_evaluate(&request, &validators, &range) == CONDITIONAL_PARTIAL)
        assert(range.count > 0 && range.first < 1000 && range.count <= 1000 - range.first);
    arena_fini(&arena);
    return 0;
}
