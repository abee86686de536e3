/*
 * Fuzz targets: each is a program of its own. With -DFUZZ=ON (clang) libFuzzer drives them; in
 * every other build replay.c feeds them the files of corpus/NAME, as part of the tests.
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
