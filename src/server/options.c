#include "server/options.h"

#include <ares.h>
#include <getopt.h>
#include <llhttp.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/privileges.h"
#include "server/syscalls.h"

static const char usage[] =
    "usage: monolake-lua [options] SITE.lua\n"
    "       monolake-lua test [busted options] SPEC...\n"
    "\n"
    "  -t, --check            compile and run the site, print what it serves, exit 0 or 1\n"
    "  -w, --workers N        worker processes (default: one per allowed CPU)\n"
    "      --io BACKEND       auto, io_uring or epoll (default: auto)\n"
    "      --tls LIBRARY      openssl or gnutls, where a site does not say (default: openssl)\n"
    "      --pid FILE         write the process id of the supervisor\n"
    "      --log-level L      error, warn, info or debug (default: info)\n"
    "      --user USER[:GROUP] run the site's code as that user, if root has started the program\n"
    "      --seccomp          refuse to the site's code all system calls that serving does not take\n"
    "      --watch            reload when a file that the site loaded changes\n"
    "      --script-timeout S seconds that a script may run at a stretch (default: 5); a worker whose\n"
    "                         layer takes longer is interrupted, then started again\n"
    "  -V, --version          print versions\n"
    "  -h, --help             print this\n"
    "\n"
    "signals: HUP reload, USR1 reopen logs, USR2 start the program anew, which takes over,\n"
    "         TERM or QUIT finish requests and stop, INT stop now\n"
    "exit codes: 0 all went well, 1 the site or the environment failed, 2 wrong usage\n";

enum {
    OPTION_IO = 256,
    OPTION_TLS,
    OPTION_PID,
    OPTION_LEVEL,
    OPTION_USER,
    OPTION_SECCOMP,
    OPTION_WATCH,
    OPTION_SCRIPT_TIMEOUT
};

enum { SCRIPT_TIMEOUT_MS = 5000, SCRIPT_TIMEOUT_MAX_S = 3600, NAME_MAX_BYTES = 32 };

static const struct option long_options[] = {
    {"check", no_argument, NULL, 't'},
    {"workers", required_argument, NULL, 'w'},
    {"io", required_argument, NULL, OPTION_IO},
    {"tls", required_argument, NULL, OPTION_TLS},
    {"pid", required_argument, NULL, OPTION_PID},
    {"log-level", required_argument, NULL, OPTION_LEVEL},
    {"user", required_argument, NULL, OPTION_USER},
    {"seccomp", no_argument, NULL, OPTION_SECCOMP},
    {"watch", no_argument, NULL, OPTION_WATCH},
    {"script-timeout", required_argument, NULL, OPTION_SCRIPT_TIMEOUT},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static const char *back_ends(void)
{
    struct io *io;
    struct io_options options = {.kind = IO_KIND_URING};
    log_threshold = LOG_LEVEL_ERROR;
    if (io_create(&io, &options) != 0)
        return "epoll (io_uring is not available here)";
    io_destroy(io);
    return "io_uring, epoll";
}

static void print_version(void)
{
    printf("monolake-lua %s\n", MONOLAKE_VERSION);
    printf("LuaJIT: %s\n", LUAJIT_VERSION);
    printf("liburing: %s\n", LIBURING_VERSION);
    for (int i = 0; i < TLS_LIBRARY_COUNT; i++)
        printf("%s: %s\n", tls_library_name((enum tls_library)i),
               tls_library_version((enum tls_library)i));
    printf("llhttp: %d.%d.%d\n", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
    printf("c-ares: %s\n", ares_version(NULL));
    printf("back ends: %s\n", back_ends());
}

static bool wrong(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "monolake-lua: %s: \"%s\" is not %s\n", option, value, expected);
    return false;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* How many bytes must be put in, taken out or exchanged to make one name of the other. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[NAME_MAX_BYTES + 1];
    size_t len = strnlen(b, NAME_MAX_BYTES);
    for (unsigned j = 0; j <= len; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1]; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= len; j++) {
            unsigned exchanged = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(exchanged, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[len];
}

static const char *nearest_name(const char *name)
{
    const char *nearest = NULL;
    unsigned best = (unsigned)least((unsigned)strlen(name), NAME_MAX_BYTES) / 2 + 1;
    for (const struct option *option = long_options; option->name; option++) {
        unsigned distance = edit_distance(name, option->name);
        if (distance < best) {
            best = distance;
            nearest = option->name;
        }
    }
    return nearest;
}

static void unknown_long(const char *argument)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(argument + 2, "="), argument + 2);
    const char *nearest = nearest_name(name);
    fprintf(stderr, "monolake-lua: unknown option \"--%s\"", name);
    fprintf(stderr, nearest ? "; did you mean \"--%s\"?\n" : "\n", nearest);
}

/* Says what getopt did not like: `missing` stands for a value that was not given. */
static void complain(char **argv, bool missing)
{
    const char *argument = argv[optind - 1];
    bool is_long = strncmp(argument, "--", 2) == 0;
    if (missing)
        fprintf(stderr, "monolake-lua: %s: there is no value\n", argument);
    else if (is_long && optopt)
        fprintf(stderr, "monolake-lua: %s: this option takes no value\n", argument);
    else if (is_long)
        unknown_long(argument);
    else
        fprintf(stderr, "monolake-lua: unknown option \"-%c\"\n", optopt);
}

static bool parse_workers(struct options *options, const char *value)
{
    char *end;
    long count = strtol(value, &end, 10);
    if (*end || end == value || count < 1 || count > WORKERS_MAX)
        return wrong("-w", value, "a number from 1 to 256");
    options->workers = (unsigned)count;
    return true;
}

static bool parse_script_timeout(struct options *options, const char *value)
{
    char *end;
    double seconds = strtod(value, &end);
    if (*end || end == value || !(seconds >= 0.001 && seconds <= SCRIPT_TIMEOUT_MAX_S))
        return wrong("--script-timeout", value, "a number of seconds up to 3600");
    options->script_timeout_ms = (uint32_t)(seconds * 1000);
    return true;
}

static bool parse_io(struct options *options, const char *value)
{
    if (strcmp(value, "auto") == 0)
        options->io = IO_KIND_AUTO;
    else if (strcmp(value, "io_uring") == 0)
        options->io = IO_KIND_URING;
    else if (strcmp(value, "epoll") == 0)
        options->io = IO_KIND_EPOLL;
    else
        return wrong("--io", value, "auto, io_uring or epoll");
    return true;
}

static bool parse_tls(struct options *options, const char *value)
{
    int library = tls_library_find(value);
    if (library < 0)
        return wrong("--tls", value, "openssl or gnutls");
    options->tls = (enum tls_library)library;
    return true;
}

static bool parse_user(const char *value)
{
    const char *why;
    return privileges_set(value, &why) || wrong("--user", value, why);
}

/* Applies one option. Returns false if it is wrong (and has been reported). */
static bool apply(struct options *options, int option, const char *value)
{
    switch (option) {
    case 't':
        options->check = true;
        return true;
    case 'w':
        return parse_workers(options, value);
    case OPTION_IO:
        return parse_io(options, value);
    case OPTION_TLS:
        return parse_tls(options, value);
    case OPTION_PID:
        options->pid_file = value;
        return true;
    case OPTION_LEVEL:
        return log_level_parse(value, &options->level) ||
               wrong("--log-level", value, "error, warn, info or debug");
    case OPTION_USER:
        return parse_user(value);
    case OPTION_SECCOMP:
        syscalls_want_filter();
        return true;
    case OPTION_WATCH:
        options->watch = true;
        return true;
    case OPTION_SCRIPT_TIMEOUT:
        return parse_script_timeout(options, value);
    default:
        return false;
    }
}

bool options_parse(struct options *options, int argc, char **argv, int *exit_code)
{
    *options = (struct options){.level = LOG_LEVEL_INFO, .script_timeout_ms = SCRIPT_TIMEOUT_MS};
    *exit_code = 0;
    int option;
    opterr = 0; /* getopt knows no nearest name: the words are ours */
    while ((option = getopt_long(argc, argv, ":tw:Vh", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(usage, stdout);
            return false;
        }
        if (option == 'V') {
            print_version();
            return false;
        }
        if (option == '?' || option == ':')
            complain(argv, option == ':');
        if (!apply(options, option, optarg)) {
            fputs("try: monolake-lua --help\n", stderr);
            *exit_code = EXIT_USAGE;
            return false;
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "monolake-lua: %s\n%s",
                optind == argc ? "there is no SITE.lua" : "there is more than one SITE.lua", usage);
        *exit_code = EXIT_USAGE;
        return false;
    }
    options->site = argv[optind];
    return true;
}
