#include "server/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SOURCES_MAX_BYTES = 512 << 20 }; /* sets of addresses are large */

/* For each file: this, the path and its NUL, the text. */
struct head {
    uint64_t path; /* length, with the NUL */
    uint64_t text; /* length */
    uint64_t secret;
};

int sources_create(void)
{
    int fd = memfd_create("sources", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t written = write(fd, at, len);
        if (written < 0)
            return -errno;
        at += written;
        len -= (size_t)written;
    }
    return 0;
}

/* Nothing is buffered: a copy would stay behind. */
int sources_add(int fd, const struct script_source *file)
{
    struct head head = {strlen(file->path) + 1, file->len, file->secret};
    int result = write_all(fd, &head, sizeof(head));
    if (result == 0)
        result = write_all(fd, file->path, head.path);
    return result == 0 ? write_all(fd, file->text, head.text) : result;
}

int sources_seal(int fd)
{
    struct stat status;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0 ||
        fstat(fd, &status) != 0)
        return -errno;
    return status.st_size > SOURCES_MAX_BYTES ? -EFBIG : 0;
}

/* Takes the file that begins there. Returns what is behind it, NULL if it is not whole. */
static const char *take(struct script_source *file, const char *at, const char *end)
{
    struct head head;
    if ((size_t)(end - at) < sizeof(head))
        return NULL;
    memcpy(&head, at, sizeof(head));
    at += sizeof(head);
    uint64_t left = (uint64_t)(end - at);
    if (head.path == 0 || head.path > left || head.text > left - head.path || at[head.path - 1])
        return NULL;
    *file = (struct script_source){at, at + head.path, head.text, head.secret != 0};
    return at + head.path + head.text;
}

static int take_all(struct sources *sources)
{
    const char *at = sources->memory;
    const char *end = at + sources->size;
    while (at < end) {
        struct script_source *grown =
            realloc(sources->files, (sources->count + 1) * sizeof(*sources->files));
        if (!grown)
            return -ENOMEM;
        sources->files = grown;
        at = take(&grown[sources->count++], at, end);
        if (!at)
            return -EBADMSG;
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
            result = take_all(sources);
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
