/* Addresses as sites write them: what is accepted is written back to something that is the same. */
#include "fuzz.h"

#include "net/address.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct address address;
    struct address again;
    char text[ADDRESS_TEXT_MAX];
    const char *why = "";
    if (size > 4096 || address_parse(slice_of((const char *)data, size), &address, &why) != 0)
        return 0;
    size_t len = address_format(&address, text);
    assert(len < ADDRESS_TEXT_MAX);
    if (memchr(text, '?', len))
        return 0; /* stands for a byte that is not printable */
    assert(address_parse(slice_of(text, len), &again, &why) == 0);
    assert(again.len == address.len && memcmp(&again.any, &address.any, address.len) == 0);
    return 0;
}
