/* replay DIRECTORY: runs a fuzz target over every file of a corpus, whole and cut at every byte. */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { FILE_MAX_BYTES = 1 << 20 };

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(FILE_MAX_BYTES);
    if (!file || !bytes) {
        perror(path);
        return 1;
    }
    size_t size = fread(bytes, 1, FILE_MAX_BYTES, file);
    fclose(file);
    for (size_t len = 0; len <= size; len++) {
        /* Of the exact size, so that a sanitizer sees every byte read too far. */
        uint8_t *exact = malloc(len ? len : 1);
        if (!exact)
            return 1;
        for (size_t i = 0; i < len; i++)
            exact[i] = bytes[i];
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    free(bytes);
    return 0;
}

int main(int argc, char **argv)
{
    DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
    unsigned count = 0;
    if (!directory) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        if (replay(path) != 0)
            return 1;
        count++;
    }
    closedir(directory);
    printf("[  PASSED  ] %u test(s).\n", count);
    return count ? 0 : 1;
}
