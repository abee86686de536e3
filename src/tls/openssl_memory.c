/*
 * Memory of OpenSSL, for the whole process: a handshake makes and frees more than a thousand
 * things, and each record of a connection that keeps no buffers takes one and gives it back.
 */
#include "tls/tls.h"

#include <openssl/crypto.h>

#include "base/blocks.h"

static void *take(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    return size ? blocks_take(size) : NULL;
}

static void give(void *bytes, const char *file, int line)
{
    (void)file;
    (void)line;
    blocks_give(bytes);
}

static void *change(void *bytes, size_t size, const char *file, int line)
{
    if (size)
        return blocks_change(bytes, size);
    give(bytes, file, line);
    return NULL;
}

void tls_keep_memory(void)
{
    CRYPTO_set_mem_functions(take, change, give);
}
