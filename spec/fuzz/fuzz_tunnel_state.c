/* Messages about tunnels that move: what is accepted is within its bounds, cut it is refused, and
 * written again it is the same, byte for byte. */
#include "fuzz.h"

#include "net/tunnel_state.h"

#include <assert.h>
#include <string.h>

static bool inside(struct slice text, struct slice bytes)
{
    return !text.len || (text.ptr >= bytes.ptr && text.ptr + text.len <= bytes.ptr + bytes.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char again[TUNNEL_STATE_MAX_BYTES];
    struct tunnel_state state, cut;
    const char *why = NULL;
    struct slice bytes = slice_of((const char *)data, size);
    if (tunnel_state_parse(bytes, &state, &why) != 0) {
        assert(why);
        return 0;
    }
    assert(!why && inside(state.listener, bytes) && inside(state.peer, bytes));
    assert(state.log_count <= TUNNEL_STATE_LOGS_MAX);
    for (unsigned i = 0; i < state.log_count; i++) {
        const struct tunnel_log *log = &state.logs[i];
        assert(log->target.len && inside(log->target, bytes) && inside(log->line.text, bytes));
        assert(log->line.time_at <= log->line.amounts_at);
        assert(log->line.amounts_at <= log->line.text.len);
    }
    assert(tunnel_state_write(&state, again) == (int)size && memcmp(again, data, size) == 0);
    for (size_t part = 0; part < size; part += size / 64 + 1)
        assert(tunnel_state_parse(slice_of(bytes.ptr, part), &cut, &why) != 0);
    return 0;
}
