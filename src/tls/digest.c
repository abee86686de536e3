#include "tls/digest.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

enum { SHA1_BYTES = 20 };

static const struct slice websocket_guid = SLICE_INIT("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");

int digest_websocket_accept(struct slice key, char accept[WEBSOCKET_ACCEPT_BYTES])
{
    unsigned char digest[SHA1_BYTES];
    unsigned char text[WEBSOCKET_ACCEPT_BYTES + 1];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool made = context && EVP_DigestInit_ex(context, EVP_sha1(), NULL) &&
                EVP_DigestUpdate(context, key.ptr, key.len) &&
                EVP_DigestUpdate(context, websocket_guid.ptr, websocket_guid.len) &&
                EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    if (!made)
        return -ENOMEM;
    EVP_EncodeBlock(text, digest, SHA1_BYTES);
    memcpy(accept, text, WEBSOCKET_ACCEPT_BYTES);
    return 0;
}

int digest_md5(struct slice text, uint8_t digest[DIGEST_MD5_BYTES])
{
    return EVP_Digest(text.ptr, text.len, digest, NULL, EVP_md5(), NULL) == 1 ? 0 : -ENOMEM;
}

int digest_sha256(struct slice text, uint8_t digest[DIGEST_SHA256_BYTES])
{
    return EVP_Digest(text.ptr, text.len, digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

int digest_hmac_sha256(struct slice key, struct slice text, uint8_t digest[DIGEST_SHA256_BYTES])
{
    const void *bytes = key.len ? key.ptr : "";
    if (key.len > INT_MAX)
        return -ENOMEM;
    return HMAC(EVP_sha256(), bytes, (int)key.len, (const unsigned char *)text.ptr, text.len,
                digest, NULL)
               ? 0
               : -ENOMEM;
}
