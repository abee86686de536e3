/* The program's own Lua (the folder lua/), compiled to bytecode at build time. */
#ifndef SCRIPT_EMBEDDED_H
#define SCRIPT_EMBEDDED_H

#include <stddef.h>

struct embedded_module {
    const char *name; /* as for require: "monolake.internal.compose" */
    const unsigned char *code;
    size_t size;
};

extern const struct embedded_module embedded_modules[];
extern const size_t embedded_module_count;

#endif
