#include "server/sources.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* For each file: its lengths, the path and its NUL, the text. */
struct lengths {
    uint64_t path; /* with the NUL */
    uint64_t text;
};

int sources_share(const struct script_source *files, unsigned count)
{
    int fd = memfd_create("sources", MFD_CLOEXEC);
    FILE *out = fd < 0 ? NULL : fdopen(dup(fd), "w");
    int result = out ? fd : -errno;
    for (unsigned i = 0; i < count && out; i++) {
        struct lengths lengths = {strlen(files[i].path) + 1, files[i].len};
        fwrite(&lengths, sizeof(lengths), 1, out);
        fwrite(files[i].path, 1, lengths.path, out);
        fwrite(files[i].text, 1, lengths.text, out);
    }
    if (out && fclose(out) != 0)
        result = -errno;
    if (result < 0 && fd >= 0)
        close(fd);
    return result;
}

static int take(struct sources *sources)
{
    const char *at = sources->memory;
    const char *end = at + sources->size;
    while (at < end) {
        struct lengths lengths;
        struct script_source *grown =
            realloc(sources->files, (sources->count + 1) * sizeof(*sources->files));
        if (!grown)
            return -ENOMEM;
        sources->files = grown;
        memcpy(&lengths, at, sizeof(lengths));
        at += sizeof(lengths);
        grown[sources->count++] = (struct script_source){at, at + lengths.path, lengths.text};
        at += lengths.path + lengths.text;
    }
    return 0;
}

int sources_open(struct sources *sources, int fd)
{
    struct stat status;
    int result = -EBADF;
    *sources = (struct sources){0};
    if (fstat(fd, &status) == 0 && status.st_size > 0) {
        sources->size = (size_t)status.st_size;
        sources->memory = mmap(NULL, sources->size, PROT_READ, MAP_SHARED, fd, 0);
        if (sources->memory == MAP_FAILED) {
            sources->memory = NULL;
            result = -errno;
        } else {
            result = take(sources);
        }
    }
    if (fd >= 0)
        close(fd);
    if (result < 0)
        sources_close(sources);
    return result;
}

void sources_close(struct sources *sources)
{
    free(sources->files);
    if (sources->memory)
        munmap(sources->memory, sources->size);
    *sources = (struct sources){0};
}
