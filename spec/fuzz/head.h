/*
 * What the targets of heads have in common: a head read in the plainest way, as an oracle for what
 * the parser made of it, and a scan in steps.
 */
#ifndef FUZZ_HEAD_H
#define FUZZ_HEAD_H

#include "http/h1_parse.h"

#include <assert.h>
#include <string.h>

static const struct h1_limits wide_limits = {
    .line_max_bytes = 4096, .head_max_bytes = 16384, .header_count_max = 64};
static const struct h1_limits tight_limits = {
    .line_max_bytes = 24, .head_max_bytes = 64, .header_count_max = 2};

static inline int scan_in_steps(const char *bytes, uint32_t size, uint32_t step,
                                const struct h1_limits *limits, bool is_request)
{
    struct h1_scan scan = {0};
    const char *why = "";
    int result = H1_INCOMPLETE;
    for (uint32_t have = 0; result == H1_INCOMPLETE && have < size;) {
        have = size - have > step ? have + step : size;
        result = h1_head_scan(&scan, bytes, have, limits, is_request, &why);
    }
    return result;
}

/* However the bytes arrive, the end is the same one or they are refused. Returns the result. */
static inline int scan_every_way(const char *bytes, uint32_t size, const struct h1_limits *limits,
                                 bool is_request)
{
    static const uint32_t steps[] = {1, 2, 7, 64};
    int whole = scan_in_steps(bytes, size, size, limits, is_request);
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        int result = scan_in_steps(bytes, size, steps[i], limits, is_request);
        assert(whole < 0 ? result < 0 : result == whole);
    }
    return whole;
}

/* Field by field, in order: what the lines say and nothing else, with clean names and values. But
 * the host that the target names, unless that is empty, takes the place of Host, or is behind all.
 */
static inline void check_fields_are_lines(const struct headers *headers, struct slice head,
                                          struct slice host)
{
    uint32_t at = 0;
    bool host_seen = host.len == 0;
    size_t line = (size_t)((const char *)memmem(head.ptr, head.len, "\r\n", 2) - head.ptr) + 2;
    while (line + 2 < head.len) {
        const char *end = memmem(head.ptr + line, head.len - line, "\r\n", 2);
        const char *colon = memchr(head.ptr + line, ':', (size_t)(end - head.ptr) - line);
        const struct header *header = headers_next(headers, &at);
        assert(header && colon);
        bool is_host = host.len && header->id == HEADER_HOST;
        host_seen |= is_host;
        struct slice name = slice_of(head.ptr + line, (size_t)(colon - head.ptr) - line);
        struct slice value = slice_trim(slice_of(colon + 1, (size_t)(end - colon) - 1));
        assert(is_host ? slice_equal_nocase(header->name, name) : slice_equal(header->name, name));
        assert(slice_equal(header->value, is_host ? host : value));
        assert(header_name_valid(header->name) && header_value_valid(header->value));
        assert(header->id == header_id_of(header->name));
        line = (size_t)(end - head.ptr) + 2;
    }
    const struct header *added = host_seen ? NULL : headers_next(headers, &at);
    assert(host_seen || (added && added->id == HEADER_HOST && slice_equal(added->value, host)));
    assert(!headers_next(headers, &at));
}

static inline unsigned count_fields(const struct headers *headers, enum header_id id)
{
    unsigned count = 0;
    for (const struct header *header = NULL; (header = headers_find_id(headers, id, header));)
        count++;
    return count;
}

#endif
