#include "server/inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "net/tunnel_state.h"
#include "server/control.h"
#include "tls/tls.h"

/* Descriptors: "of what was written:of control:of tunnels". */
#define VARIABLE "MONOLAKE_INHERIT"

enum { SECRET_LINE_BYTES = 2 * TLS_TICKET_SECRET_BYTES + 1 }; /* hexadecimal */

struct left {
    char key[LISTENER_KEY_MAX];
    int lent;
    unsigned count;
    int fds[WORKERS_MAX];
};

static struct left *lefts;
static unsigned left_count;
static int control = -1;
static int tunnels = -1;

/* --- The old program ---------------------------------------------------------------------------
 */

/* The first line. Not by way of a FILE, whose buffer would keep it. */
static bool write_secret(int fd)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *secret = tls_ticket_secret();
    char line[SECRET_LINE_BYTES];
    for (unsigned i = 0; i < TLS_TICKET_SECRET_BYTES; i++) {
        line[2 * i] = digits[secret[i] >> 4];
        line[2 * i + 1] = digits[secret[i] & 15];
    }
    line[SECRET_LINE_BYTES - 1] = '\n';
    bool written = write(fd, line, sizeof(line)) == sizeof(line);
    explicit_bzero(line, sizeof(line));
    return written;
}

/* The length of the key, for it may hold any byte; then the key, whether it is lent, and the
 * descriptors. */
static void write_bound(FILE *file, const struct bound *bound, unsigned workers)
{
    fprintf(file, "%zu %s %d %u", strlen(bound->key), bound->key, bound->lent, workers);
    for (unsigned i = 0; i < workers; i++)
        fprintf(file, " %d", bound->fds[i]);
    fputc('\n', file);
}

int inherit_write(const struct bounds *bounds)
{
    int fd = memfd_create("monolake-inherit", MFD_CLOEXEC);
    int copy = fd < 0 ? -1 : dup(fd);
    FILE *file = copy < 0 ? NULL : fdopen(copy, "w");
    if (!file) {
        int error = -errno;
        close(copy);
        close(fd);
        return error;
    }
    bool written = write_secret(fd);
    for (unsigned i = 0; i < bounds->count; i++)
        write_bound(file, bounds->items[i], bounds->workers);
    if (fclose(file) != 0 || !written) {
        close(fd);
        return -ENOSPC;
    }
    return fd;
}

static void keep_across_exec(int fd)
{
    fcntl(fd, F_SETFD, 0);
}

void inherit_leave(const struct bounds *bounds, int written, int old_control, int of_tunnels)
{
    char text[48];
    for (unsigned i = 0; i < bounds->count; i++)
        for (unsigned j = 0; j < bounds->workers; j++)
            keep_across_exec(bounds->items[i]->fds[j]);
    keep_across_exec(written);
    keep_across_exec(old_control);
    keep_across_exec(of_tunnels);
    snprintf(text, sizeof(text), "%d:%d:%d", written, old_control, of_tunnels);
    setenv(VARIABLE, text, 1);
}

/* --- The new program ---------------------------------------------------------------------------
 */

static bool read_secret(int fd)
{
    uint8_t secret[TLS_TICKET_SECRET_BYTES];
    char line[SECRET_LINE_BYTES];
    bool well = read(fd, line, sizeof(line)) == sizeof(line);
    for (unsigned i = 0; i < sizeof(secret) && well; i++) {
        char digits[] = {line[2 * i], line[2 * i + 1], '\0'};
        char *end;
        secret[i] = (uint8_t)strtoul(digits, &end, 16);
        well = end == digits + 2;
    }
    if (well)
        tls_set_ticket_secret(secret);
    explicit_bzero(line, sizeof(line));
    explicit_bzero(secret, sizeof(secret));
    return well;
}

static bool read_descriptor(FILE *file, int *fd)
{
    return fscanf(file, "%d", fd) == 1 && fcntl(*fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* Returns 1, 0 at the end, or -1. */
static int read_bound(FILE *file, struct left *left)
{
    size_t len;
    int got = fscanf(file, "%zu", &len);
    if (got == EOF)
        return 0;
    if (got != 1 || len >= sizeof(left->key) || fgetc(file) != ' ' ||
        fread(left->key, 1, len, file) != len ||
        fscanf(file, "%d %u", &left->lent, &left->count) != 2 || left->count > WORKERS_MAX)
        return -1;
    left->key[len] = '\0';
    for (unsigned i = 0; i < left->count; i++)
        if (!read_descriptor(file, &left->fds[i]))
            return -1;
    return 1;
}

static bool read_bounds(FILE *file)
{
    for (;;) {
        struct left *grown = realloc(lefts, (left_count + 1) * sizeof(*lefts));
        if (!grown)
            return false;
        lefts = grown;
        int got = read_bound(file, &lefts[left_count]);
        if (got <= 0)
            return got == 0;
        left_count++;
    }
}

bool inherit_read(void)
{
    const char *text = getenv(VARIABLE);
    int written;
    if (!text)
        return true;
    int count = sscanf(text, "%d:%d:%d", &written, &control, &tunnels);
    if (count == 3 && fcntl(tunnels, F_SETFD, FD_CLOEXEC) != 0)
        tunnels = -1;
    bool well = count >= 2 && /* a program before ours may have no tunnels to hand over */
                fcntl(control, F_SETFD, FD_CLOEXEC) == 0 && lseek(written, 0, SEEK_SET) == 0;
    unsetenv(VARIABLE);
    well = well && read_secret(written);
    FILE *file = well ? fdopen(written, "r") : NULL;
    well = file && read_bounds(file);
    if (file)
        fclose(file);
    if (!well)
        log_error("what " VARIABLE " tells of a program before this one is no use: %s", text);
    return well;
}

unsigned inherit_take(const char *key, struct address *address, int *fds, unsigned max, bool *lent)
{
    for (unsigned i = 0; i < left_count; i++) {
        struct left *left = &lefts[i];
        if (!left->count || strcmp(left->key, key) != 0)
            continue;
        address->len = sizeof(address->local);
        if (getsockname(left->fds[0], &address->any, &address->len) != 0)
            return 0;
        unsigned taken = left->count < max ? left->count : max;
        memcpy(fds, left->fds, taken * sizeof(*fds));
        left->count -= taken;
        *lent = left->lent;
        memmove(left->fds, left->fds + taken, left->count * sizeof(*fds));
        return taken;
    }
    return 0;
}

void inherit_drop_rest(void)
{
    for (unsigned i = 0; i < left_count; i++)
        for (unsigned j = 0; j < lefts[i].count; j++)
            close(lefts[i].fds[j]);
    free(lefts);
    lefts = NULL;
    left_count = 0;
}

int inherit_control(void)
{
    return control;
}

int inherit_tunnels(void)
{
    return tunnels;
}

void inherit_drop_tunnels(void)
{
    if (tunnels >= 0)
        close(tunnels);
    tunnels = -1;
}

void inherit_tell_ready(const struct bounds *bounds)
{
    for (unsigned i = 0; i < bounds->count; i++) {
        const struct bound *bound = bounds->items[i];
        if (bound->inherited)
            control_send_all(control, CONTROL_ADOPTED, bound->inherited, bound->key);
    }
    if (tunnels >= 0)
        control_send_all(control, CONTROL_TAKES_TUNNELS, TUNNEL_STATE_VERSION, NULL);
    control_send_all(control, CONTROL_READY, 0, NULL);
    close(control);
    control = -1;
}
