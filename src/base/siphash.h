/* SipHash-2-4 (Aumasson and Bernstein): a hash that nobody can predict who does not have the key.
 */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

enum { SIPHASH_KEY_BYTES = 16 };

uint64_t siphash(const uint8_t key[SIPHASH_KEY_BYTES], const void *bytes, size_t len);

#endif
