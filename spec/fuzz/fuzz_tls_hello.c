/*
 * What a client sends first, given to a server of each TLS library. Whatever it is, a failed
 * session says why and no other does, a refused name ends the handshake, and where both libraries
 * understand the hello, they have read the same name and protocols in it.
 */
#include "fuzz.h"

#include "tls/tls.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static struct tls_server *server_of(enum tls_library library)
{
    static struct tls_server *servers[TLS_LIBRARY_COUNT];
    static const uint8_t secret[TLS_TICKET_SECRET_BYTES];
    static const char *const protocols[] = {"h2", "http/1.1", NULL};
    struct tls_server_config config = {
        .policy.alpn = protocols, .asks_hello = true, .ticket_secret = secret};
    char *error;
    if (!servers[library])
        servers[library] = tls_server_create(library, &config, &error);
    assert(servers[library]);
    return servers[library];
}

static int hear(struct tls_session *session, enum tls_library library, struct slice bytes)
{
    int result = tls_accept(session, server_of(library));
    assert(result == 0);
    session->input = bytes;
    result = tls_handshake(session);
    assert(result == -EAGAIN || result == -EPROTO || result == TLS_HELLO);
    assert((result == -EPROTO) == (tls_error(session)[0] != '\0'));
    assert((result == TLS_HELLO) == (session->hello != NULL));
    return result;
}

static void refuse(struct tls_session *session)
{
    tls_refuse_hello(session);
    int result = tls_handshake(session);
    assert(result == -EPROTO && tls_error(session)[0] && session->output.len > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_session sessions[TLS_LIBRARY_COUNT];
    struct slice input = slice_of((const char *)data, size);
    int results[TLS_LIBRARY_COUNT];
    for (unsigned i = 0; i < TLS_LIBRARY_COUNT; i++)
        results[i] = hear(&sessions[i], (enum tls_library)i, input);
    if (results[TLS_OPENSSL] == TLS_HELLO && results[TLS_GNUTLS] == TLS_HELLO) {
        const struct tls_hello *one = sessions[TLS_OPENSSL].hello;
        const struct tls_hello *other = sessions[TLS_GNUTLS].hello;
        assert(strcmp(one->name, other->name) == 0);
        assert(slice_equal(one->alpn, other->alpn));
    }
    for (unsigned i = 0; i < TLS_LIBRARY_COUNT; i++) {
        if (results[i] == TLS_HELLO)
            refuse(&sessions[i]);
        tls_end(&sessions[i]);
    }
    return 0;
}
