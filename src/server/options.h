/* The command line. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include "base/log.h"
#include "io/io.h"
#include "tls/tls.h"

#include <stdbool.h>
#include <stdint.h>

enum { WORKERS_MAX = 256, EXIT_USAGE = 2 };

struct options {
    const char *site;           /* the script */
    bool check;                 /* -t */
    bool watch;                 /* --watch */
    unsigned workers;           /* -w; 0: one per allowed CPU */
    enum io_kind io;            /* --io */
    enum tls_library tls;       /* --tls */
    const char *pid_file;       /* --pid, or NULL */
    enum log_level level;       /* --log-level */
    uint32_t script_timeout_ms; /* --script-timeout */
    const char *program;        /* its file, absolute, as it was when it was started */
    char **arguments;           /* it was started with */
};

/* Parses. Returns true when there is a site to run; otherwise *exit_code is what to exit with
 * (usage, version or an error has been printed). */
bool options_parse(struct options *options, int argc, char **argv, int *exit_code);

#endif
