#include "l4/detect.h"

#include "tls/client_hello.h"

enum { METHOD_MAX_BYTES = 24 };

const char *l4_protocol_name(enum l4_protocol protocol)
{
    static const char *const names[] = {
        [L4_PROTOCOL_UNDECIDED] = "other", /* nothing, or too little, was said in time */
        [L4_PROTOCOL_TLS] = "tls",         [L4_PROTOCOL_HTTP] = "http",
        [L4_PROTOCOL_H2C] = "h2c",         [L4_PROTOCOL_OTHER] = "other",
    };
    return names[protocol];
}

static enum l4_protocol detect_tls(struct slice bytes)
{
    struct client_hello_reader reader;
    client_hello_begin(&reader, NULL);
    enum client_hello_verdict verdict = client_hello_read(&reader, bytes);
    if (verdict == CLIENT_HELLO_NOT_TLS)
        return L4_PROTOCOL_OTHER;
    return reader.message_len ? L4_PROTOCOL_TLS : L4_PROTOCOL_UNDECIDED;
}

/* Does the text begin like that, as far as it goes? Of one that ends too early nobody knows. */
static enum l4_protocol begins(struct slice text, struct slice with, enum l4_protocol found)
{
    size_t len = text.len < with.len ? text.len : with.len;
    if (!slice_equal_nocase(slice_of(text.ptr, len), slice_of(with.ptr, len)))
        return L4_PROTOCOL_OTHER;
    return len == with.len ? found : L4_PROTOCOL_UNDECIDED;
}

static enum l4_protocol detect_target(struct slice method, struct slice target)
{
    if (!target.len)
        return L4_PROTOCOL_UNDECIDED;
    if (target.ptr[0] == '/' || slice_equal(method, SLICE("CONNECT")))
        return L4_PROTOCOL_HTTP;
    if (target.ptr[0] == '*')
        return begins(target, SLICE("* "), L4_PROTOCOL_HTTP);
    enum l4_protocol plain = begins(target, SLICE("http://"), L4_PROTOCOL_HTTP);
    return plain != L4_PROTOCOL_OTHER ? plain : begins(target, SLICE("https://"), L4_PROTOCOL_HTTP);
}

static enum l4_protocol detect_http(struct slice bytes)
{
    size_t len = 0;
    while (len < bytes.len && len <= METHOD_MAX_BYTES &&
           ((bytes.ptr[len] >= 'A' && bytes.ptr[len] <= 'Z') || (len && bytes.ptr[len] == '-')))
        len++;
    if (len > METHOD_MAX_BYTES)
        return L4_PROTOCOL_OTHER;
    if (len == bytes.len)
        return L4_PROTOCOL_UNDECIDED;
    if (len == 0 || bytes.ptr[len] != ' ')
        return L4_PROTOCOL_OTHER;
    return detect_target(slice_of(bytes.ptr, len),
                         slice_of(bytes.ptr + len + 1, bytes.len - len - 1));
}

enum l4_protocol l4_detect(struct slice bytes)
{
    static const struct slice preface = SLICE_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    if (!bytes.len)
        return L4_PROTOCOL_UNDECIDED;
    if ((bytes.ptr[0] & 0xff) == 22)
        return detect_tls(bytes);
    size_t len = bytes.len < preface.len ? bytes.len : preface.len;
    if (slice_equal(slice_of(bytes.ptr, len), slice_of(preface.ptr, len)))
        return len == preface.len ? L4_PROTOCOL_H2C : L4_PROTOCOL_UNDECIDED;
    return detect_http(bytes);
}
