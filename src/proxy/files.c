#include "proxy/files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "http/conditional.h"
#include "http/exchange.h"
#include "io/io.h"
#include "proxy/content_type.h"
#include "proxy/file_body.h"
#include "proxy/route_path.h"

enum {
    ROOT_REFRESH_MS = 1000, /* a root that is replaced (a link to the next release) is noticed */
    OPEN_TRIES = 8,         /* openat2 gives EAGAIN while somebody renames directories */
};

struct files {
    const char *root;
    const char *index;
    const char *cache_control; /* NULL: none */
    int fd;                    /* of the root */
    int64_t opened_ms;         /* when it was opened last */
};

/* --- Opening ---------------------------------------------------------------------------------- */

static int open_beneath(int root, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    for (int i = 0; i < OPEN_TRIES; i++) {
        long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return -EAGAIN;
}

static int open_root(const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A root that is gone for a moment stays what it was. */
static void refresh_root(struct files *files, int64_t now_ms)
{
    if (now_ms - files->opened_ms < ROOT_REFRESH_MS)
        return;
    files->opened_ms = now_ms;
    int fd = open_root(files->root);
    if (fd < 0)
        return;
    close(files->fd);
    files->fd = fd;
}

/* Files whose names begin with a dot are nobody's business, but for those of RFC 8615. */
static bool is_hidden(struct slice path)
{
    static const struct slice known = SLICE_INIT(".well-known/");
    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] != '.' || (i > 0 && path.ptr[i - 1] != '/'))
            continue;
        if (!slice_starts_with(slice_of(path.ptr + i, path.len - i), known))
            return true;
    }
    return false;
}

static bool has_escaped_slash(struct slice path)
{
    return path.len && memmem(path.ptr, path.len, "%2F", 3) != NULL;
}

/* --- Answers without a file ------------------------------------------------------------------- */

static struct response *answer_error(struct request *request, int error)
{
    static struct log_limit limit;
    uint32_t suppressed;
    switch (error) {
    case -ENOENT:
    case -ENOTDIR:
    case -ENAMETOOLONG:
    case -ELOOP:
    case -EXDEV: /* it would leave the root */
    case -EINVAL:
    case -EAGAIN:
        return response_create_text(request, 404, SLICE("Not Found\n"));
    case -EACCES:
    case -EPERM:
        return response_create_text(request, 403, SLICE("Forbidden\n"));
    }
    if (log_limit_pass(&limit, 10, &suppressed))
        log_error("file %.*s: %s", (int)request->path.len, request->path.ptr, strerror(-error));
    bool exhausted = error == -EMFILE || error == -ENFILE || error == -ENOMEM;
    return response_create_error(request, exhausted ? 503 : 500,
                                 exhausted ? RESPONSE_OVERLOADED : RESPONSE_LAYER_FAILED,
                                 slice_from_cstr(strerror(-error)));
}

static struct response *answer_method(struct request *request)
{
    struct response *response = response_create_text(request, 405, SLICE("Method Not Allowed\n"));
    if (response && headers_add(&response->headers, SLICE("Allow"), SLICE("GET, HEAD")) != 0)
        return NULL;
    return response;
}

static char *put_escaped(char *out, struct slice segment)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < segment.len; i++) {
        unsigned char c = (unsigned char)segment.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     memchr("-._~!$&'()*+,;=:@", c, 17);
        if (plain) {
            *out++ = (char)c;
        } else {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        }
    }
    return out;
}

/* The request's path in normal form with a slash at its end, and the query. Normal form, since
 * "//host/.." would send the client to another host. */
static struct slice directory_location(struct request *request)
{
    struct route_path path;
    if (route_path_split(&path, request->path, request->arena) != 0)
        return slice_of(NULL, 0);
    size_t size = request->query.len + 3;
    for (unsigned i = 0; i < path.count; i++)
        size += path.segments[i].len * 3 + 1;
    char *text = arena_alloc(request->arena, size);
    if (!text)
        return slice_of(NULL, 0);
    char *out = text;
    for (unsigned i = 0; i < path.count; i++) {
        *out++ = '/';
        out = put_escaped(out, path.segments[i]);
    }
    *out++ = '/';
    if (request->query.ptr) {
        *out++ = '?';
        memcpy(out, request->query.ptr, request->query.len);
        out += request->query.len;
    }
    return slice_of(text, (size_t)(out - text));
}

static struct response *answer_redirect(struct request *request)
{
    struct slice location = directory_location(request);
    struct response *response = response_create_text(request, 301, SLICE("Moved Permanently\n"));
    if (!location.ptr || !response ||
        headers_add(&response->headers, SLICE("Location"), location) != 0)
        return NULL;
    return response;
}

/* --- A file ----------------------------------------------------------------------------------- */

/* What is sent of an open file. */
struct sending {
    const struct files *files;
    struct request *request;
    struct slice path;
    int fd; /* owned until a body takes it */
    struct validators validators;
    char etag[48];
    char modified[HTTP_DATE_BYTES];
};

static int add_text(struct response *response, struct slice name, struct slice value)
{
    struct slice copy = arena_copy(response->arena, value);
    return copy.ptr ? headers_add(&response->headers, name, copy) : -ENOMEM;
}

static int add_validators(const struct sending *sending, struct response *response)
{
    const char *cache_control = sending->files->cache_control;
    int result = add_text(response, SLICE("Last-Modified"), slice_from_cstr(sending->modified));
    if (result == 0)
        result = add_text(response, SLICE("ETag"), sending->validators.etag);
    if (result == 0 && cache_control)
        result =
            headers_add(&response->headers, SLICE("Cache-Control"), slice_from_cstr(cache_control));
    return result;
}

static struct response *answer_without_body(const struct sending *sending, uint16_t status)
{
    struct response *response = response_create(sending->request, status);
    if (!response || (status == 304 && add_validators(sending, response) != 0))
        return NULL;
    struct slice range =
        arena_printf(response->arena, "bytes */%llu", (unsigned long long)sending->validators.size);
    if (status == 416 &&
        (!range.ptr || headers_add(&response->headers, SLICE("Content-Range"), range) != 0))
        return NULL;
    return response;
}

static struct response *answer_bytes(struct sending *sending, uint16_t status,
                                     struct byte_range range)
{
    struct response *response = response_create(sending->request, status);
    if (!response || add_validators(sending, response) != 0 ||
        headers_add_id(&response->headers, HEADER_CONTENT_TYPE, SLICE("Content-Type"),
                       content_type_of(sending->path)) != 0 ||
        headers_add(&response->headers, SLICE("Accept-Ranges"), SLICE("bytes")) != 0)
        return NULL;
    if (status == 206) {
        struct slice text =
            arena_printf(response->arena, "bytes %llu-%llu/%llu", (unsigned long long)range.first,
                         (unsigned long long)(range.first + range.count - 1),
                         (unsigned long long)sending->validators.size);
        if (!text.ptr || headers_add(&response->headers, SLICE("Content-Range"), text) != 0)
            return NULL;
    }
    if (!range.count)
        return response;
    int fd = sending->fd;
    sending->fd = -1;
    return file_body_init(response, fd, range.first, range.count) == 0 ? response : NULL;
}

static struct response *answer_file(struct sending *sending)
{
    struct byte_range range = {0, sending->validators.size};
    switch (conditional_evaluate(sending->request, &sending->validators, &range)) {
    case CONDITIONAL_NOT_MODIFIED:
        return answer_without_body(sending, 304);
    case CONDITIONAL_FAILED:
        return answer_without_body(sending, 412);
    case CONDITIONAL_UNSATISFIABLE:
        return answer_without_body(sending, 416);
    case CONDITIONAL_PARTIAL:
        return answer_bytes(sending, 206, range);
    default:
        return answer_bytes(sending, 200, (struct byte_range){0, sending->validators.size});
    }
}

static void take_validators(struct sending *sending, const struct stat *status)
{
    struct validators *validators = &sending->validators;
    int len = snprintf(sending->etag, sizeof(sending->etag), "\"%llx.%lx-%llx\"",
                       (unsigned long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec,
                       (unsigned long long)status->st_size);
    validators->etag = slice_of(sending->etag, (size_t)len);
    validators->modified = status->st_mtim.tv_sec;
    validators->size = (uint64_t)status->st_size;
    http_date_format(status->st_mtim.tv_sec, sending->modified);
}

/* The index of a directory, if the path says that it is one. */
static struct response *answer_directory(struct sending *sending, bool named_as_one);

static struct response *answer_open(struct sending *sending, bool may_be_directory)
{
    struct stat status;
    if (fstat(sending->fd, &status) != 0)
        return answer_error(sending->request, -errno);
    if (S_ISREG(status.st_mode)) {
        take_validators(sending, &status);
        return answer_file(sending);
    }
    if (!S_ISDIR(status.st_mode) || !may_be_directory)
        return answer_error(sending->request, -ENOENT);
    struct slice whole = sending->request->path;
    return answer_directory(sending, whole.len && whole.ptr[whole.len - 1] == '/');
}

static struct response *answer_directory(struct sending *sending, bool named_as_one)
{
    if (!named_as_one)
        return answer_redirect(sending->request);
    int fd = open_beneath(sending->fd, sending->files->index);
    if (fd < 0)
        return answer_error(sending->request, fd);
    close(sending->fd);
    sending->fd = fd;
    sending->path = slice_from_cstr(sending->files->index);
    return answer_open(sending, false);
}

/* The path below the root; ptr NULL if the request's path is malformed. */
static struct slice relative_path(struct request *request)
{
    struct route_path path;
    if (request->path_rest.ptr)
        return arena_copy(request->arena, request->path_rest);
    if (route_path_split(&path, request->path, request->arena) != 0)
        return slice_of(NULL, 0);
    struct slice rest = route_path_rest(&path, 0, request->arena);
    return rest.ptr ? arena_copy(request->arena, rest) : rest;
}

static ml_response *handle(void *self, ml_request *request, ml_next *next)
{
    struct files *files = self;
    (void)next;
    if (request->method != METHOD_GET && request->method != METHOD_HEAD)
        return answer_method(request);
    struct slice path = relative_path(request);
    if (!path.ptr)
        return response_create_text(request, 400, SLICE("Bad Request\n"));
    if (is_hidden(path) || has_escaped_slash(path))
        return answer_error(request, -ENOENT);

    refresh_root(files, io_now_ms(request->exchange->io));
    struct sending sending = {.files = files, .request = request, .path = path};
    sending.fd = open_beneath(files->fd, path.len ? path.ptr : ".");
    if (sending.fd < 0)
        return answer_error(request, sending.fd);
    struct response *response = answer_open(&sending, true);
    if (sending.fd >= 0)
        close(sending.fd);
    return response;
}

const ml_layer files_layer = {.abi = ML_ABI, .name = "files", .handle = handle};

/* --- Life ------------------------------------------------------------------------------------- */

static void close_root(void *arg)
{
    struct files *files = arg;
    close(files->fd);
}

static struct files *fail(struct arena *arena, const char *root, int error, const char **why)
{
    *why = arena_printf(arena, "%s: %s", root, strerror(-error)).ptr;
    return NULL;
}

struct files *files_create(struct arena *arena, const struct files_config *config,
                           const char **error)
{
    struct files *files = arena_alloc(arena, sizeof(*files));
    *error = "out of memory";
    if (!files)
        return NULL;
    *files = (struct files){.fd = open_root(config->root)};
    if (files->fd < 0)
        return fail(arena, config->root, files->fd, error);
    int probe = open_beneath(files->fd, ".");
    if (probe >= 0)
        close(probe);
    files->root = arena_copy(arena, slice_from_cstr(config->root)).ptr;
    files->index = arena_copy(arena, slice_from_cstr(config->index)).ptr;
    if (config->max_age_ms >= 0)
        files->cache_control =
            arena_printf(arena, "max-age=%lld", (long long)(config->max_age_ms / 1000)).ptr;
    bool complete = files->root && files->index && (config->max_age_ms < 0 || files->cache_control);
    if (probe < 0 || !complete || arena_defer(arena, close_root, files) != 0) {
        close(files->fd);
        return probe < 0 ? fail(arena, config->root, probe, error) : NULL;
    }
    return files;
}
