/* What judges an HTTP/2 client's frames: their heads, however they are cut, the budgets, and how
 * streams were closed. */
#include "http/h2_closed.h"
#include "http/h2_guard.h"
#include "http/h2_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { FRAMES = 5 };

static const struct h2_frame_head expected[FRAMES] = {
    {.length = 0, .type = 4, .flags = 1, .stream_id = 0},
    {.length = 300, .type = 0, .flags = 0, .stream_id = 0x7fffffff},
    {.length = 5, .type = 9, .flags = 4, .stream_id = 1},
    {.length = 5, .type = 2, .flags = 0, .stream_id = 1, .dependency = 0x7fffffff},
    {.length = 3, .type = 2, .flags = 0, .stream_id = 1}, /* no room for a dependency */
};

static size_t put_frames(uint8_t *bytes)
{
    size_t at = H2_PREFACE_BYTES;
    memset(bytes, 0xff, at);
    for (unsigned i = 0; i < FRAMES; i++) {
        const struct h2_frame_head *head = &expected[i];
        uint32_t id =
            (uint32_t)head->stream_id | 0x80000000; /* the reserved bit is no part of it */
        uint8_t raw[H2_FRAME_HEAD_BYTES] = {
            0,           (uint8_t)(head->length >> 8), (uint8_t)head->length, head->type,
            head->flags, (uint8_t)(id >> 24),          (uint8_t)(id >> 16),   (uint8_t)(id >> 8),
            (uint8_t)id};
        memcpy(bytes + at, raw, sizeof(raw));
        memset(bytes + at + sizeof(raw), 0xff, head->length);
        at += sizeof(raw) + head->length;
    }
    return at;
}

/* Scans a piece; heads that end in it must be the expected ones. */
static void scan_piece(struct h2_scan *scan, const uint8_t *bytes, size_t len, unsigned *count)
{
    for (size_t at = 0; at < len;) {
        struct h2_frame_head head;
        bool found;
        at += h2_scan_next(scan, bytes + at, len - at, &head, &found);
        if (!found) {
            assert_int_equal(at, len);
            return;
        }
        assert_in_range(*count, 0, FRAMES - 1);
        assert_int_equal(head.length, expected[*count].length);
        assert_int_equal(head.type, expected[*count].type);
        assert_int_equal(head.flags, expected[*count].flags);
        assert_int_equal(head.stream_id, expected[*count].stream_id);
        assert_int_equal(head.dependency, expected[*count].dependency);
        (*count)++;
    }
}

static void finds_heads_cut_at_every_byte(void **state)
{
    (void)state;
    uint8_t bytes[512];
    size_t len = put_frames(bytes);
    for (size_t cut = 0; cut <= len; cut++) {
        struct h2_scan scan;
        unsigned count = 0;
        h2_scan_init(&scan, true);
        scan_piece(&scan, bytes, cut, &count);
        scan_piece(&scan, bytes + cut, len - cut, &count);
        assert_int_equal(count, FRAMES);
        assert_int_equal(scan.left + scan.have, 0);
    }
}

static const struct h2_guard_limits limits = {.resets_max = 5, .faults_max = 3, .control_max = 10};

/* How often an event passes, up to 1,000 times. */
static unsigned passes(struct h2_guard *guard, enum h2_event event, int64_t now_ms)
{
    unsigned count = 0;
    while (count < 1000 && !h2_guard_count(guard, &limits, event, now_ms))
        count++;
    return count;
}

static void bounds_what_is_made_of_nothing(void **state)
{
    (void)state;
    struct h2_guard guard = {0};
    assert_int_equal(passes(&guard, H2_EVENT_CONTROL, 100000), 10);
    assert_int_equal(passes(&guard, H2_EVENT_FAULT, 100000), 3);
    assert_int_equal(passes(&guard, H2_EVENT_RESET, 100000), 5);
    assert_int_equal(passes(&guard, H2_EVENT_CONTROL, 100000 + H2_GUARD_WINDOW_MS - 1), 0);
    assert_int_equal(passes(&guard, H2_EVENT_CONTROL, 100000 + H2_GUARD_WINDOW_MS), 10);
}

static void lets_traffic_earn_its_control_frames(void **state)
{
    (void)state;
    struct h2_guard guard = {0};
    for (int i = 0; i < 100; i++)
        assert_null(h2_guard_count(&guard, &limits, H2_EVENT_DATA, 100000));
    assert_int_equal(passes(&guard, H2_EVENT_CONTROL, 100000), 210);
}

static void minds_resets_only_if_they_are_most(void **state)
{
    (void)state;
    struct h2_guard guard = {0};
    for (int i = 0; i < 100; i++)
        assert_null(h2_guard_count(&guard, &limits, H2_EVENT_REQUEST, 100000));
    assert_int_equal(passes(&guard, H2_EVENT_RESET, 100000), 50);
}

static void remembers_how_streams_were_closed(void **state)
{
    (void)state;
    struct h2_closed closed = {0};
    h2_closed_add(&closed, 1, H2_CLOSED_BY_END);
    h2_closed_add(&closed, 5, H2_CLOSED_BY_PEER_RESET);
    assert_int_equal(h2_closed_find(&closed, 1), H2_CLOSED_BY_END);
    assert_int_equal(h2_closed_find(&closed, 5), H2_CLOSED_BY_PEER_RESET);
    assert_int_equal(h2_closed_find(&closed, 3), H2_CLOSED_NEVER_OPENED);
    for (int32_t id = 7; id < 7 + 2 * H2_CLOSED_KEPT; id += 2)
        h2_closed_add(&closed, id, H2_CLOSED_BY_OUR_RESET);
    assert_int_equal(h2_closed_find(&closed, 1), H2_CLOSED_LONG_AGO);
    assert_int_equal(h2_closed_find(&closed, 7), H2_CLOSED_BY_OUR_RESET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_heads_cut_at_every_byte),
        cmocka_unit_test(bounds_what_is_made_of_nothing),
        cmocka_unit_test(lets_traffic_earn_its_control_frames),
        cmocka_unit_test(minds_resets_only_if_they_are_most),
        cmocka_unit_test(remembers_how_streams_were_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
