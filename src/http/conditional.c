#include "http/conditional.h"

#include <string.h>

/* --- Dates ------------------------------------------------------------------------------------ */

time_t http_date_parse(struct slice text)
{
    static const char *const formats[] = {
        "%a, %d %b %Y %H:%M:%S GMT", /* IMF-fixdate */
        "%A, %d-%b-%y %H:%M:%S GMT", /* RFC 850 */
        "%a %b %d %H:%M:%S %Y",      /* asctime */
    };
    char copy[64];
    if (text.len >= sizeof(copy))
        return -1;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        struct tm parts = {0};
        const char *end = strptime(copy, formats[i], &parts);
        if (end && !*end)
            return timegm(&parts);
    }
    return -1;
}

void http_date_format(time_t time, char text[HTTP_DATE_BYTES])
{
    struct tm parts;
    strftime(text, HTTP_DATE_BYTES, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&time, &parts));
}

/* --- Entity tags ------------------------------------------------------------------------------ */

/* Does the list in one field have the tag? A weak one matches in weak comparison only (RFC 9110
 * section 8.8.3.2). Tags may hold commas, so they are read one by one. */
static bool list_has_tag(struct slice list, struct slice tag, bool weak_comparison)
{
    const char *at = list.ptr;
    const char *end = list.ptr + list.len;
    while (at < end) {
        if (*at == ' ' || *at == '\t' || *at == ',') {
            at++;
            continue;
        }
        bool weak = end - at > 2 && at[0] == 'W' && at[1] == '/';
        at += weak ? 2 : 0;
        const char *close = *at == '"' ? memchr(at + 1, '"', (size_t)(end - at - 1)) : NULL;
        if (!close)
            return false;
        struct slice one = slice_of(at, (size_t)(close + 1 - at));
        if (slice_equal(one, tag) && (!weak || weak_comparison))
            return true;
        at = close + 1;
    }
    return false;
}

/* Do all fields of that name together match? */
static bool tags_match(const struct headers *headers, struct slice name, struct slice tag,
                       bool weak_comparison)
{
    for (struct header *header = headers_find(headers, name, NULL); header;
         header = headers_find(headers, name, header))
        if (slice_equal(header->value, SLICE("*")) ||
            list_has_tag(header->value, tag, weak_comparison))
            return true;
    return false;
}

/* --- Ranges ----------------------------------------------------------------------------------- */

/* Reads digits; false if there are none or too many. */
static bool take_number(struct slice *text, uint64_t *number)
{
    size_t digits = 0;
    *number = 0;
    while (digits < text->len && text->ptr[digits] >= '0' && text->ptr[digits] <= '9') {
        if (digits == 18)
            return false;
        *number = *number * 10 + (uint64_t)(text->ptr[digits++] - '0');
    }
    *text = slice_of(text->ptr + digits, text->len - digits);
    return digits > 0;
}

enum range_kind { RANGE_NONE, RANGE_GOOD, RANGE_UNSATISFIABLE };

static enum range_kind suffix_range(uint64_t count, uint64_t size, struct byte_range *range)
{
    if (count == 0 || size == 0)
        return RANGE_UNSATISFIABLE;
    range->count = count < size ? count : size;
    range->first = size - range->count;
    return RANGE_GOOD;
}

/* "bytes=0-499", "bytes=500-", "bytes=-500". */
static enum range_kind parse_range(struct slice text, uint64_t size, struct byte_range *range)
{
    uint64_t first;
    uint64_t last;
    if (text.len < 6 || !slice_equal_nocase(slice_of(text.ptr, 6), SLICE("bytes=")))
        return RANGE_NONE;
    text = slice_trim(slice_of(text.ptr + 6, text.len - 6));
    if (text.len && text.ptr[0] == '-') {
        text = slice_of(text.ptr + 1, text.len - 1);
        return take_number(&text, &last) && !text.len ? suffix_range(last, size, range)
                                                      : RANGE_NONE;
    }
    if (!take_number(&text, &first) || !text.len || text.ptr[0] != '-')
        return RANGE_NONE;
    text = slice_of(text.ptr + 1, text.len - 1);
    if (!text.len)
        last = UINT64_MAX;
    else if (!take_number(&text, &last) || text.len || last < first)
        return RANGE_NONE;
    if (first >= size)
        return RANGE_UNSATISFIABLE;
    range->first = first;
    range->count = (last < size ? last + 1 : size) - first;
    return RANGE_GOOD;
}

/* RFC 9110 section 13.1.5: a strong tag or the exact date. */
static bool if_range_holds(const struct headers *headers, const struct validators *validators)
{
    struct slice value = headers_get(headers, SLICE("if-range"));
    if (!value.ptr)
        return true;
    if (slice_starts_with(value, SLICE("\"")) || slice_starts_with(value, SLICE("W/")))
        return slice_equal(value, validators->etag);
    return http_date_parse(value) == validators->modified;
}

static enum conditional evaluate_range(const struct request *request,
                                       const struct validators *validators,
                                       struct byte_range *range)
{
    struct header *header = headers_find(&request->headers, SLICE("range"), NULL);
    if (!header || request->method != METHOD_GET ||
        headers_find(&request->headers, SLICE("range"), header) ||
        !if_range_holds(&request->headers, validators))
        return CONDITIONAL_WHOLE;
    switch (parse_range(header->value, validators->size, range)) {
    case RANGE_GOOD:
        return CONDITIONAL_PARTIAL;
    case RANGE_UNSATISFIABLE:
        return CONDITIONAL_UNSATISFIABLE;
    default:
        return CONDITIONAL_WHOLE;
    }
}

/* --- Preconditions ---------------------------------------------------------------------------- */

enum conditional conditional_evaluate(const struct request *request,
                                      const struct validators *validators, struct byte_range *range)
{
    const struct headers *headers = &request->headers;
    if (headers_find(headers, SLICE("if-match"), NULL)) {
        if (!tags_match(headers, SLICE("if-match"), validators->etag, false))
            return CONDITIONAL_FAILED;
    } else {
        struct slice since = headers_get(headers, SLICE("if-unmodified-since"));
        time_t date = since.ptr ? http_date_parse(since) : -1;
        if (date >= 0 && validators->modified > date)
            return CONDITIONAL_FAILED;
    }
    if (headers_find(headers, SLICE("if-none-match"), NULL)) {
        if (tags_match(headers, SLICE("if-none-match"), validators->etag, true))
            return CONDITIONAL_NOT_MODIFIED;
    } else {
        struct slice since = headers_get(headers, SLICE("if-modified-since"));
        time_t date = since.ptr ? http_date_parse(since) : -1;
        if (date >= 0 && validators->modified <= date)
            return CONDITIONAL_NOT_MODIFIED;
    }
    return evaluate_range(request, validators, range);
}
