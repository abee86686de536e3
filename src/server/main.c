/* monolake-lua: where everything begins. See docs/design.md for how it goes on. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/output.h"
#include "server/activation.h"
#include "server/inherit.h"
#include "server/options.h"
#include "server/privileges.h"
#include "server/supervisor.h"
#include "server/test_command.h"

/* Without this the first sockets would get the numbers of closed standard streams, and log lines
 * would go to a client. */
static void hold_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* Connections are descriptors: as many as we may have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warn("cannot raise the limit of open files to %llu",
                 (unsigned long long)limit.rlim_max);
}

/* SIGUSR2 starts what is found there then. */
static void note_program(struct options *options, char **argv)
{
    static char path[4096];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    options->program = len > 0 ? path : argv[0];
    options->arguments = argv;
}

static int run(const struct options *options)
{
    struct probe_result probed;
    probe_run(options->site, options->script_timeout_ms, &probed);
    int exit_code = 1;
    if (probed.error)
        fprintf(stderr, "%s\n", probed.error);
    else if (options->check)
        exit_code = printf("%s", probed.summary) < 0;
    else
        exit_code = supervisor_main(options, &probed);
    probe_result_free(&probed);
    return exit_code;
}

int main(int argc, char **argv)
{
    struct options options;
    int exit_code;
    hold_standard_streams();
    if (argc > 1 && strcmp(argv[1], "test") == 0)
        return test_command(argc - 2, argv + 2);
    if (!options_parse(&options, argc, argv, &exit_code))
        return exit_code;
    log_threshold = options.level;
    output_open_standards();
    privileges_limit();
    tls_keep_memory();
    tls_set_default_library(options.tls);
    activation_read();
    if (!inherit_read())
        return 1;
    note_program(&options, argv);
    tls_ticket_secret(); /* every process is forked off this one, and shares it */
    raise_descriptor_limit();
    return run(&options);
}
