#include "thrift/gather.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

enum { FIRST_BYTES = 4096 };

struct gathered {
    struct arena *arena;
    char *bytes;
    size_t len;
    size_t capacity;
};

static int append(struct gathered *gathered, struct slice piece)
{
    size_t needed = gathered->len + piece.len;
    if (needed > gathered->capacity) {
        size_t capacity = needed < FIRST_BYTES ? FIRST_BYTES : needed * 2;
        char *grown = arena_alloc(gathered->arena, capacity);
        if (!grown)
            return -ENOMEM;
        if (gathered->len)
            memcpy(grown, gathered->bytes, gathered->len);
        gathered->bytes = grown;
        gathered->capacity = capacity;
    }
    if (piece.len)
        memcpy(gathered->bytes + gathered->len, piece.ptr, piece.len);
    gathered->len = needed;
    return 0;
}

int thrift_gather(struct body *body, struct arena *arena, uint32_t max, struct slice *out)
{
    struct gathered gathered = {.arena = arena};
    struct slice piece;
    int result;
    while ((result = body_read(body, &piece, 1, DEADLINE_NEVER)) > 0) {
        bool over = piece.len > max - gathered.len;
        if (over)
            piece.len = max - gathered.len;
        result = append(&gathered, piece);
        if (result == 0 && over)
            result = -EMSGSIZE;
        if (result < 0)
            break;
    }
    *out = slice_of(gathered.bytes, gathered.len);
    return result;
}
