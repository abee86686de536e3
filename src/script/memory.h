/*
 * What a Lua state may take of memory (ml.options { lua_memory_max = ... }). Its allocator is
 * LuaJIT's own, behind one that counts.
 *
 *   0 ────────────── half ─────────── 9/10 ── max ──────────────────── 2 max
 *       nothing to do │  all garbage is │ over │ an alarm: at its next    │ a large block is
 *                     │  collected now  │      │ instruction the script   │ refused as well
 *                     │  and then       │      │ raises an error, if all  │
 *                     │                 │      │ garbage was not enough   │
 *
 * An allocation beyond the maximum does not fail, for LuaJIT 2.1 of 2023 may crash where one does:
 * in compiled code it has no consistent stack, and a stack that cannot grow is written beyond. A
 * hook raises the error instead; the collector is told to leave compiled code for it, which
 * otherwise looks for no hook. Only a large block that would double the maximum is refused: stacks
 * are smaller, and what else is small does not get far before the next instruction.
 *
 * LuaJIT maps memory for machine code itself, at most 40 MiB a state: that is not counted.
 */
#ifndef SCRIPT_MEMORY_H
#define SCRIPT_MEMORY_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCRIPT_MEMORY_MAX_BYTES ((size_t)1 << 30) /* unless a site says otherwise */

/* All zero: of a state that is not counted. */
struct script_memory {
    lua_State *L;
    lua_Alloc allocate; /* LuaJIT's own allocator */
    void *arena;        /* of that */
    size_t used;        /* bytes */
    size_t largest;     /* block that there was: no stack is larger */
    size_t max;
    size_t alarm;             /* what exceeds that many is an alarm */
    size_t collect_at;        /* garbage is collected after a step of a script that leaves more */
    bool alarmed;             /* the hook is set */
    bool ending;              /* the state is being closed */
    bool over;                /* more than 9/10 of the maximum was left by the last collection */
    int64_t shown;            /* in the counters */
    size_t tidy_at;           /* more than that is worth a collection in calm times */
    unsigned tidy_cycles;     /* that are still to be gone through then */
    void (*pause)(void *arg); /* see script_options; NULL: none */
    void *pause_arg;
    unsigned allocations; /* while there is a pause */
};

/* Counts what the state has, and takes from now on. */
void memory_begin(struct script_memory *memory, lua_State *L);

/* To be called before the state is closed. */
void memory_end(struct script_memory *memory);

/* For what takes long without an allocation: a moment for the pause, if there is one. */
static inline void memory_pause(struct script_memory *memory)
{
    if (memory->pause)
        memory->pause(memory->pause_arg);
}

void memory_set_max(struct script_memory *memory, size_t max);

/* Collects all garbage. Not while the state runs. */
void memory_collect(struct script_memory *memory);

/* For calm times: goes on for at most half a millisecond with the collection of what garbage has
 * gathered, if it may be much. Not while the state runs. */
void memory_tidy(struct script_memory *memory);

/* To be called whenever the state has come to rest. */
void memory_rest(struct script_memory *memory);

/* Bytes of all states of this process, as far as they have come to rest. */
int64_t memory_total(void);

#endif
