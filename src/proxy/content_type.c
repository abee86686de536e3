#include "proxy/content_type.h"

#include <stdlib.h>

struct ending {
    const char *name;
    const char *type;
};

/* Sorted by name. */
static const struct ending endings[] = {
    {"avif", "image/avif"},
    {"bin", "application/octet-stream"},
    {"css", "text/css; charset=utf-8"},
    {"csv", "text/csv; charset=utf-8"},
    {"gif", "image/gif"},
    {"gz", "application/gzip"},
    {"htm", "text/html; charset=utf-8"},
    {"html", "text/html; charset=utf-8"},
    {"ico", "image/x-icon"},
    {"jpeg", "image/jpeg"},
    {"jpg", "image/jpeg"},
    {"js", "text/javascript; charset=utf-8"},
    {"json", "application/json"},
    {"map", "application/json"},
    {"md", "text/markdown; charset=utf-8"},
    {"mjs", "text/javascript; charset=utf-8"},
    {"mp3", "audio/mpeg"},
    {"mp4", "video/mp4"},
    {"ogg", "audio/ogg"},
    {"otf", "font/otf"},
    {"pdf", "application/pdf"},
    {"png", "image/png"},
    {"svg", "image/svg+xml"},
    {"ttf", "font/ttf"},
    {"txt", "text/plain; charset=utf-8"},
    {"wasm", "application/wasm"},
    {"wav", "audio/wav"},
    {"webm", "video/webm"},
    {"webmanifest", "application/manifest+json"},
    {"webp", "image/webp"},
    {"woff", "font/woff"},
    {"woff2", "font/woff2"},
    {"xml", "application/xml"},
    {"zip", "application/zip"},
};

enum { ENDING_MAX_BYTES = 12 };

static int compare(const void *key, const void *item)
{
    return strcmp(key, ((const struct ending *)item)->name);
}

struct slice content_type_of(struct slice path)
{
    char ending[ENDING_MAX_BYTES];
    const char *dot = path.len ? memrchr(path.ptr, '.', path.len) : NULL;
    size_t len = dot ? (size_t)(path.ptr + path.len - dot - 1) : 0;
    const struct ending *found = NULL;
    if (len && len < sizeof(ending)) {
        for (size_t i = 0; i < len; i++)
            ending[i] = ascii_lower(dot[1 + i]);
        ending[len] = '\0';
        found = bsearch(ending, endings, sizeof(endings) / sizeof(endings[0]), sizeof(endings[0]),
                        compare);
    }
    return slice_from_cstr(found ? found->type : "application/octet-stream");
}
