#include "server/test_command.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/options.h"

/* Puts a directory's modules in front of a search path of Lua. */
static void prepend(const char *variable, const char *format, const char *directory)
{
    char text[2 * PATH_MAX];
    const char *old = getenv(variable);
    int len = snprintf(text, sizeof(text), format, directory, directory);
    /* An empty last part stands for Lua's own default path. */
    if (len > 0 && (size_t)len < sizeof(text))
        snprintf(text + len, sizeof(text) - (size_t)len, ";%s", old ? old : ";");
    setenv(variable, text, 1);
}

/* In the build tree the libraries lie beside the program; installed ones are on Lua's path. */
static void add_build_tree(const char *program)
{
    char directory[PATH_MAX];
    char source[PATH_MAX];
    snprintf(directory, sizeof(directory), "%s", program);
    char *slash = strrchr(directory, '/');
    if (!slash)
        return;
    *slash = '\0';
    snprintf(source, sizeof(source), "%.*s/lualib/monolake/core.so", PATH_MAX - 32, directory);
    if (access(source, R_OK) != 0)
        return;
    snprintf(source, sizeof(source), "%.*s/../lualib", PATH_MAX - 32, directory);
    prepend("LUA_PATH", "%s/?.lua;%s/?/init.lua", source);
    snprintf(source, sizeof(source), "%.*s/lualib", PATH_MAX - 32, directory);
    prepend("LUA_CPATH", "%s/?.so", source);
}

int test_command(int argc, char **argv)
{
    char program[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    char **arguments = calloc((size_t)argc + 3, sizeof(*arguments));
    if (len < 0 || !arguments) {
        fprintf(stderr, "monolake-lua test: %s\n", strerror(errno));
        free(arguments);
        return 1;
    }
    program[len] = '\0';
    setenv("MONOLAKE_TEST_SERVER", program, 1);
    add_build_tree(program);
    arguments[0] = "busted";
    arguments[1] = "--lua=luajit";
    for (int i = 0; i < argc; i++)
        arguments[2 + i] = argv[i];
    execvp("busted", arguments);
    fprintf(stderr, "monolake-lua test: cannot run busted: %s (Debian: apt install lua-busted)\n",
            strerror(errno));
    free(arguments);
    return 1;
}
