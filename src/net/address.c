#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>

enum { HOST_NAME_MAX_BYTES = 253, LABEL_MAX_BYTES = 63, PORT_DIGITS_MAX = 5 };

static const struct slice unix_prefix = SLICE_INIT("unix:");

static int fail(const char **why, const char *phrase)
{
    *why = phrase;
    return -EINVAL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_byte(char c)
{
    return is_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || c == '-' || c == '_';
}

/* Labels of letters, digits, '-' and '_'; one dot may end the name. */
static bool is_host_name(struct slice host)
{
    if (host.len == 0 || host.len > HOST_NAME_MAX_BYTES)
        return false;
    size_t label_len = 0;
    for (size_t i = 0; i < host.len; i++) {
        if (host.ptr[i] == '.') {
            if (label_len == 0)
                return false;
            label_len = 0;
        } else if (!is_name_byte(host.ptr[i]) || ++label_len > LABEL_MAX_BYTES) {
            return false;
        }
    }
    return true;
}

/* "10.0.0.300" is a mistyped address and never a name: no top-level domain is a number. */
static bool ends_in_number(struct slice host)
{
    size_t at = host.len;
    while (at && is_digit(host.ptr[at - 1]))
        at--;
    return at < host.len && (at == 0 || host.ptr[at - 1] == '.');
}

static int parse_port(struct slice text, uint16_t *port, const char **why)
{
    unsigned value = 0;
    if (text.len == 0)
        return fail(why, "has no port");
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.ptr[i]))
            return fail(why, "has a port that is no number");
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
        if (i >= PORT_DIGITS_MAX || value > UINT16_MAX)
            return fail(why, "has a port above 65535");
    }
    *port = (uint16_t)value;
    return 0;
}

/* Host and port, the host unchecked; *bracketed tells "[::1]". */
static int cut(struct slice text, struct slice *host, uint16_t *port, bool *bracketed,
               const char **why)
{
    const char *colon;
    *bracketed = text.len && text.ptr[0] == '[';
    if (*bracketed) {
        const char *bracket = memchr(text.ptr, ']', text.len);
        if (!bracket)
            return fail(why, "lacks the \"]\"");
        *host = slice_of(text.ptr + 1, (size_t)(bracket - text.ptr) - 1);
        colon = bracket + 1;
        if (colon == text.ptr + text.len || *colon != ':')
            return fail(why, "has no port");
    } else {
        colon = memchr(text.ptr, ':', text.len);
        if (!colon)
            return fail(why, "has no port");
        *host = slice_of(text.ptr, (size_t)(colon - text.ptr));
        if (memchr(colon + 1, ':', text.len - host->len - 1))
            return fail(why, "is an IPv6 address without brackets (\"[::1]:80\")");
    }
    if (host->len == 0)
        return fail(why, "has no host");
    const char *rest = colon + 1;
    return parse_port(slice_of(rest, (size_t)(text.ptr + text.len - rest)), port, why);
}

static bool parse_host(struct slice host, bool bracketed, struct address *address)
{
    char text[INET6_ADDRSTRLEN];
    if (host.len >= sizeof(text) || memchr(host.ptr, '\0', host.len))
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    *address = (struct address){0};
    if (bracketed) {
        address->v6.sin6_family = AF_INET6;
        address->len = sizeof(address->v6);
        return inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1;
    }
    address->v4.sin_family = AF_INET;
    address->len = sizeof(address->v4);
    return inet_pton(AF_INET, text, &address->v4.sin_addr) == 1;
}

static int parse_local(struct slice path, struct address *address, const char **why)
{
    *address = (struct address){.local.sun_family = AF_UNIX};
    if (path.len == 0 || (path.len == 1 && path.ptr[0] == '@'))
        return fail(why, "has no path");
    if (memchr(path.ptr, '\0', path.len))
        return fail(why, "has a NUL in its path");
    if (path.len >= sizeof(address->local.sun_path))
        return fail(why, "has a path of more than 107 bytes");
    memcpy(address->local.sun_path, path.ptr, path.len);
    address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len);
    if (path.ptr[0] == '@')
        address->local.sun_path[0] = '\0'; /* an abstract name: its length ends it */
    else
        address->len++; /* the NUL */
    return 0;
}

int address_split(struct slice text, struct slice *host, uint16_t *port, const char **why)
{
    bool bracketed;
    int result = cut(text, host, port, &bracketed, why);
    if (result < 0)
        return result;
    struct address address;
    if (parse_host(*host, bracketed, &address))
        return 0;
    if (bracketed)
        return fail(why, "has no IPv6 address between the brackets");
    if (ends_in_number(*host))
        return fail(why, "has a malformed IPv4 address");
    if (!is_host_name(*host))
        return fail(why, "has a malformed host name");
    return 0;
}

int address_parse(struct slice text, struct address *address, const char **why)
{
    if (slice_starts_with(text, unix_prefix))
        return parse_local(slice_of(text.ptr + unix_prefix.len, text.len - unix_prefix.len),
                           address, why);
    struct slice host;
    uint16_t port;
    int result = address_split(text, &host, &port, why);
    if (result < 0)
        return result;
    bool bracketed = text.ptr[0] == '[';
    if (!parse_host(host, bracketed, address))
        return fail(why, "is a host name where a numeric address is needed");
    if (bracketed)
        address->v6.sin6_port = htons(port);
    else
        address->v4.sin_port = htons(port);
    return 0;
}

/* The name of a local socket: abstract ones begin with '@', unnamed ones are empty. */
static size_t format_local(const struct address *address, char *text)
{
    size_t len = address->len - offsetof(struct sockaddr_un, sun_path);
    const char *path = address->local.sun_path;
    bool abstract = len && path[0] == '\0';
    if (!abstract)
        len = strnlen(path, len);
    memcpy(text, unix_prefix.ptr, unix_prefix.len);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)path[i];
        text[unix_prefix.len + i] = c >= ' ' && c < 0x7f ? (char)c : '?';
    }
    if (abstract)
        text[unix_prefix.len] = '@';
    text[unix_prefix.len + len] = '\0';
    return unix_prefix.len + len;
}

size_t address_format(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN];
    text[0] = '\0';
    if (address->len == 0)
        return 0;
    switch (address->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
        return (size_t)snprintf(text, ADDRESS_TEXT_MAX, "%s:%u", host, address_port(address));
    case AF_INET6:
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
        return (size_t)snprintf(text, ADDRESS_TEXT_MAX, "[%s]:%u", host, address_port(address));
    case AF_UNIX:
        return format_local(address, text);
    default:
        return 0;
    }
}

size_t address_format_host(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
    text[0] = '\0';
    if (address->len == 0)
        return 0;
    switch (address->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->v4.sin_addr, text, ADDRESS_TEXT_MAX);
        return strlen(text);
    case AF_INET6:
        inet_ntop(AF_INET6, &address->v6.sin6_addr, text, ADDRESS_TEXT_MAX);
        return strlen(text);
    case AF_UNIX:
        memcpy(text, unix_prefix.ptr, unix_prefix.len + 1);
        return unix_prefix.len;
    default:
        return 0;
    }
}

uint16_t address_port(const struct address *address)
{
    switch (address->len ? address->any.sa_family : AF_UNSPEC) {
    case AF_INET:
        return ntohs(address->v4.sin_port);
    case AF_INET6:
        return ntohs(address->v6.sin6_port);
    default:
        return 0;
    }
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->len != b->len)
        return false;
    if (a->len == 0)
        return true;
    if (a->any.sa_family != b->any.sa_family)
        return false;
    switch (a->any.sa_family) {
    case AF_INET:
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    case AF_INET6:
        return a->v6.sin6_port == b->v6.sin6_port && a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
               memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof(a->v6.sin6_addr)) == 0;
    default:
        return memcmp(&a->any, &b->any, a->len) == 0;
    }
}
