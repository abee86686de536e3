/*
 * What a TLS client says first, read without answering it. However it arrives, it is the same; and
 * where OpenSSL understands it too, both have read the same name and protocols.
 */
#include "fuzz.h"

#include "tls/client_hello.h"
#include "tls/fingerprint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint8_t message[CLIENT_HELLO_MAX_BYTES];

static enum client_hello_verdict read_in_pieces(struct client_hello_reader *reader,
                                                struct slice bytes, size_t piece)
{
    enum client_hello_verdict verdict = CLIENT_HELLO_MORE;
    client_hello_begin(reader, message);
    for (size_t at = 0; at < bytes.len && verdict == CLIENT_HELLO_MORE; at += piece) {
        size_t len = bytes.len - at < piece ? bytes.len - at : piece;
        verdict = client_hello_read(reader, slice_of(bytes.ptr + at, len));
    }
    return verdict;
}

static void take_fingerprints(const struct client_hello *hello)
{
    static char ja3[FINGERPRINT_JA3_MAX_BYTES];
    char hash[FINGERPRINT_JA3_HASH_BYTES];
    char ja4[FINGERPRINT_JA4_BYTES];
    size_t len = fingerprint_ja3(hello, ja3);
    assert(len > 0 && len <= sizeof(ja3));
    assert(fingerprint_ja3_hash(slice_of(ja3, len), hash) == 0);
    assert(fingerprint_ja4(hello, ja4) == 0);
    assert(strlen(hash) == sizeof(hash) - 1 && strlen(ja4) == sizeof(ja4) - 1);
}

static void compare(struct slice bytes, const struct client_hello *hello)
{
    static struct tls_server *server;
    struct tls_server_config config = {.asks_hello = true};
    struct tls_session session;
    char *error;
    if (!server)
        server = tls_server_create(TLS_OPENSSL, &config, &error);
    assert(server);
    int result = tls_accept(&session, server);
    assert(result == 0);
    session.input = bytes;
    if (tls_handshake(&session) == TLS_HELLO) {
        assert(strcmp(session.hello->name, hello->name) == 0);
        assert(slice_equal(session.hello->alpn, hello->alpn));
    }
    tls_end(&session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct client_hello_reader whole;
    struct client_hello_reader pieces;
    struct slice input = slice_of((const char *)data, size);
    enum client_hello_verdict verdict = read_in_pieces(&pieces, input, 1);
    assert(read_in_pieces(&whole, input, size ? size : 1) == verdict);
    assert(whole.message_len == pieces.message_len && whole.total == pieces.total);
    if (verdict != CLIENT_HELLO_DONE)
        return 0;
    /* Memory of exactly its size, so that reading beyond it is found. */
    char *copy = malloc(whole.message_len);
    assert(copy);
    memcpy(copy, message, whole.message_len);
    struct client_hello hello;
    if (client_hello_parse(slice_of(copy, whole.message_len), &hello) == 0) {
        take_fingerprints(&hello);
        compare(input, &hello);
    }
    free(copy);
    return 0;
}
