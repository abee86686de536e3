/*
 * What becomes of a generation whose Lua holds more than it may (ml.options { lua_memory_max = }):
 * its site is loaded anew. One that is full again and again is given longer and longer times, in
 * which what needs memory fails; in the end the worker is to end. Never suspends.
 */
#ifndef SERVER_MEMORY_WATCH_H
#define SERVER_MEMORY_WATCH_H

#include <stdint.h>

struct site;

struct memory_watch {
    unsigned restarts; /* in a row, each soon after the one before */
    int64_t restarted_ms;
    int64_t next_ms; /* nothing is done before */
};

enum memory_verdict {
    MEMORY_FINE,    /* or nothing is to be done yet */
    MEMORY_RESTART, /* load the site anew */
    MEMORY_END,     /* that has not helped, or would not: drain */
};

/* To be asked when script_memory_over says so; logs what it wants done. */
enum memory_verdict memory_watch_judge(struct memory_watch *watch, struct site *site,
                                       int64_t now_ms);

#endif
