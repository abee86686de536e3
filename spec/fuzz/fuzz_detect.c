/* What a client speaks: once it is known, nothing that comes later changes it, and it is known by
 * the bytes that are looked at. */
#include "fuzz.h"

#include "l4/detect.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum l4_protocol known = L4_PROTOCOL_UNDECIDED;
    for (size_t len = 0; len <= size && len <= (size_t)2 * L4_DETECT_MAX_BYTES; len++) {
        enum l4_protocol found = l4_detect(slice_of((const char *)data, len));
        assert(known == L4_PROTOCOL_UNDECIDED || found == known);
        assert(found != L4_PROTOCOL_UNDECIDED || len < L4_DETECT_MAX_BYTES);
        known = found;
    }
    return 0;
}
