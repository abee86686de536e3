#include "tls/name.h"

#include <stdbool.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte behind a backslash (RFC 4514 section 2.4): two digits, or itself. Returns how many
 * characters it took. */
static size_t unescape(const char *text, char *byte)
{
    int high = hex_digit(text[0]);
    int low = high >= 0 ? hex_digit(text[1]) : -1;
    *byte = low >= 0 ? (char)(high * 16 + low) : text[0];
    return low >= 0 ? 2 : 1;
}

/* The value of the first attribute of that type, or NULL. */
static const char *find_value(const char *at)
{
    bool at_start = true; /* of an attribute */
    while (*at && !(at_start && strncmp(at, "CN=", 3) == 0)) {
        at_start = *at == ',' || *at == '+';
        at += at[0] == '\\' && at[1] ? 2 : 1;
    }
    return *at ? at + 3 : NULL;
}

ssize_t tls_common_name(const char *subject, char *out)
{
    const char *at = find_value(subject);
    size_t len = 0;
    if (!at)
        return -1;
    while (*at && *at != ',' && *at != '+') {
        if (at[0] == '\\' && at[1])
            at += 1 + unescape(at + 1, &out[len++]);
        else
            out[len++] = *at++;
    }
    return (ssize_t)len;
}
