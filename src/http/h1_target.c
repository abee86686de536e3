#include "http/h1_target.h"

/* Bytes of reg-name (RFC 3986 section 3.2.2) but escapes: unreserved and sub-delims. */
static bool name_byte(char c)
{
    char lower = ascii_lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~!$&'()*+,;=", c));
}

static bool hex_digit(char c)
{
    char lower = ascii_lower(c);
    return (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'f');
}

/* "%" and two digits, which make no NUL. */
static bool escape_at(struct slice text, size_t at)
{
    return text.len - at >= 3 && text.ptr[at] == '%' && hex_digit(text.ptr[at + 1]) &&
           hex_digit(text.ptr[at + 2]) && (text.ptr[at + 1] != '0' || text.ptr[at + 2] != '0');
}

static bool address_byte(char c)
{
    return hex_digit(c) || c == ':' || c == '.';
}

static bool port_valid(struct slice port)
{
    unsigned value = 0;
    for (size_t i = 0; i < port.len; i++) {
        if (port.ptr[i] < '0' || port.ptr[i] > '9')
            return false;
        value = value * 10 + (unsigned)(port.ptr[i] - '0');
        if (value > 65535)
            return false;
    }
    return true;
}

/* Length of the host in front; 0 if there is none. */
static size_t host_length(struct slice authority)
{
    size_t len = 0;
    if (authority.len && authority.ptr[0] == '[') {
        for (len = 1; len < authority.len && address_byte(authority.ptr[len]); len++)
            continue;
        return len > 2 && len < authority.len && authority.ptr[len] == ']' ? len + 1 : 0;
    }
    while (len < authority.len && (name_byte(authority.ptr[len]) || escape_at(authority, len)))
        len += authority.ptr[len] == '%' ? 3 : 1;
    return len;
}

bool h1_authority_valid(struct slice authority)
{
    size_t host = host_length(authority);
    if (!host || authority.len == host)
        return host > 0;
    return authority.ptr[host] == ':' &&
           port_valid(slice_of(authority.ptr + host + 1, authority.len - host - 1));
}

/* Visible ASCII without the fragment's "#", and none of what no URI may hold and what others cut
 * or re-interpret. */
static bool bytes_valid(struct slice target)
{
    for (size_t i = 0; i < target.len; i++) {
        uint8_t c = (uint8_t)target.ptr[i];
        if (c <= ' ' || c >= 0x7f || c == '#' || c == '"' || c == '<' || c == '>' || c == '\\')
            return false;
    }
    return true;
}

static void split_query(struct request *request, struct slice path)
{
    const char *mark = memchr(path.ptr, '?', path.len);
    request->path = path;
    if (mark) {
        request->path.len = (size_t)(mark - path.ptr);
        request->query = slice_of(mark + 1, path.len - request->path.len - 1);
    }
    if (!request->path.len)
        request->path = SLICE("/");
}

/* Length of "http://" or "https://" in front; 0 if it is neither. */
static size_t scheme_length(struct slice target)
{
    static const struct slice schemes[] = {SLICE_INIT("http://"), SLICE_INIT("https://")};
    for (unsigned i = 0; i < 2; i++)
        if (target.len > schemes[i].len &&
            slice_equal_nocase(slice_of(target.ptr, schemes[i].len), schemes[i]))
            return schemes[i].len;
    return 0;
}

static int parse_absolute(struct request *request, struct slice target, struct slice *authority,
                          const char **why)
{
    size_t scheme = scheme_length(target);
    *why = "a request target that is neither a path nor an http URI";
    if (!scheme)
        return -1;
    size_t end = scheme;
    while (end < target.len && target.ptr[end] != '/' && target.ptr[end] != '?')
        end++;
    *authority = slice_of(target.ptr + scheme, end - scheme);
    *why = "an invalid authority in the request target";
    if (!h1_authority_valid(*authority))
        return -1;
    if (end == target.len && request->method == METHOD_OPTIONS)
        request->path =
            SLICE("*"); /* RFC 9112 section 3.2.4: it asks about the server as a whole */
    else
        split_query(request, slice_of(target.ptr + end, target.len - end));
    return 0;
}

/* host:port; an empty port is none (RFC 9110 section 9.3.6). */
static bool names_port(struct slice authority)
{
    return h1_authority_valid(authority) && host_length(authority) + 1 < authority.len;
}

int h1_target_parse(struct request *request, struct slice target, struct slice *authority,
                    const char **why)
{
    *why = "an invalid byte in the request target";
    if (!bytes_valid(target))
        return -1;
    if (request->method == METHOD_CONNECT) {
        *why = "CONNECT needs host:port";
        *authority = target;
        request->path = SLICE("");
        return names_port(target) ? 0 : -1;
    }
    if (target.ptr[0] == '/') {
        split_query(request, target);
        return 0;
    }
    if (slice_equal(target, SLICE("*"))) {
        *why = "only OPTIONS may have the target *";
        request->path = target;
        return request->method == METHOD_OPTIONS ? 0 : -1;
    }
    return parse_absolute(request, target, authority, why);
}
