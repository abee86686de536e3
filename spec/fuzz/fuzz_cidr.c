/* Prefixes as sites write them: what is accepted contains its first address, and its set has it. */
#include "fuzz.h"

#include "net/cidr.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cidr_prefix prefix;
    struct cidr_builder builder = {0};
    struct slice text = slice_of((const char *)data, size);
    const char *why = NULL;
    if (cidr_parse(text, &prefix, &why) != 0) {
        assert(why);
        return 0;
    }
    assert(prefix.len <= (prefix.family == CIDR_V4 ? 32 : 128));
    assert(cidr_builder_add(&builder, &prefix) == 0);
    struct cidr_set *set = cidr_set_create(&builder);
    const char *slash = memchr(text.ptr, '/', text.len);
    if (slash)
        text.len = (size_t)(slash - text.ptr);
    assert(set && cidr_set_count(set) == 1 && cidr_set_contains_text(set, text) == 1);
    cidr_builder_fini(&builder);
    cidr_set_destroy(set);
    return 0;
}
