#include "script/memory.h"

#include "base/clock.h"
#include "base/counters.h"
#include "script/interrupt.h"
#include "script/state.h"

enum {
    LAST_BYTES = 64 << 10, /* more than the state itself, without its stack */
    LARGE_BYTES = 1 << 20, /* a block that may be refused: twice the largest stack */
    STEPS = 16,            /* of the maximum: so much more may be taken after an error */
    PAUSE_PERCENT = 200, /* LuaJIT's own: a collection begins at twice of what the last has left */
    STEP_PERCENT = 200,  /* LuaJIT's own: how fast it goes on */
    STEP_LEAST = 0,      /* as little as a step may be */
    TIDY_US = 500,
    TIDY_CYCLES = 2, /* the one that is under way may have seen much before it was dropped */
    TIDY_MIN_BYTES = 64 << 10, /* of garbage, perhaps, and an eighth of all */
    TIDY_PART = 8,
    STEP_ALL = 0,     /* all of it in one step */
    ALLOCATIONS = 64, /* from one pause to the next: some 10 us of a script */
    HOOK_AT_ONCE = LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT,
};

static int64_t total;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bool is_over(const struct script_memory *memory)
{
    return memory->used > memory->max / 10 * 9;
}

/* Beyond the maximum, the next alarm is for more than is held now: what handles the error and its
 * traceback need some memory, too. */
static void set_alarm(struct script_memory *memory)
{
    size_t refused = memory->max * 2;
    size_t next = is_over(memory) ? memory->used + memory->max / STEPS : 0;
    memory->alarm = larger(memory->max, next < refused ? next : refused);
}

/* --- The alarm -------------------------------------------------------------------------------- */

static void unhook(struct script_memory *memory)
{
    memory->alarmed = false;
    lua_gc(memory->L, LUA_GCSETSTEPMUL, STEP_PERCENT);
    lua_sethook(memory->L, NULL, 0, 0);
}

static int mebibytes(size_t bytes)
{
    return (int)(bytes >> 20);
}

static void raise_error(lua_State *L, lua_Debug *activation)
{
    struct script_memory *memory = &script_of(L)->memory;
    (void)activation;
    unhook(memory);
    lua_gc(L, LUA_GCCOLLECT, 0);
    set_alarm(memory);
    if (!is_over(memory))
        return;
    interrupt_push_place(L);
    lua_pushfstring(L, "not enough memory: the site's Lua holds %d MiB, lua_memory_max is %d MiB",
                    mebibytes(memory->used), mebibytes(memory->max));
    lua_concat(L, 2);
    lua_error(L);
}

/* In the middle of anything that Lua does: sets values only. A script that is interrupted already
 * will end as well. */
static void sound_alarm(struct script_memory *memory)
{
    memory->alarmed = true;
    memory->alarm = memory->max * 2;
    memory->collect_at = 0;
    lua_gc(memory->L, LUA_GCRESTART, 0); /* now */
    lua_gc(memory->L, LUA_GCSETSTEPMUL, STEP_ALL);
    if (!interrupt_is_armed())
        lua_sethook(memory->L, raise_error, HOOK_AT_ONCE, 1);
}

/* A state that ends must have its own allocator back before its stack goes, the last but one. */
static void count_for_pause(struct script_memory *memory)
{
    if (++memory->allocations % ALLOCATIONS == 0)
        memory->pause(memory->pause_arg);
    if (memory->ending && memory->used < memory->largest + LAST_BYTES)
        lua_setallocf(memory->L, memory->allocate, memory->arena);
}

static void *count(void *arg, void *block, size_t old_size, size_t new_size)
{
    struct script_memory *memory = arg;
    size_t used = memory->used - old_size + new_size;
    if (used > memory->alarm && new_size > old_size) {
        if (used > memory->max * 2 && new_size >= LARGE_BYTES)
            return NULL;
        if (!memory->alarmed)
            sound_alarm(memory);
    }
    if (memory->pause)
        count_for_pause(memory);
    void *allocated = memory->allocate(memory->arena, block, old_size, new_size);
    if (allocated || !new_size)
        memory->used = used;
    if (new_size > memory->largest)
        memory->largest = new_size;
    return allocated;
}

/* --- At rest ---------------------------------------------------------------------------------- */

void memory_set_max(struct script_memory *memory, size_t max)
{
    memory->max = max;
    memory->collect_at = max / 2;
    set_alarm(memory);
}

void memory_begin(struct script_memory *memory, lua_State *L)
{
    memory->L = L;
    memory->used = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    memory_set_max(memory, SCRIPT_MEMORY_MAX_BYTES);
    memory->allocate = lua_getallocf(L, &memory->arena);
    lua_setallocf(L, count, memory);
}

static void show(struct script_memory *memory, int64_t used)
{
    counters_add(COUNTER_LUA_MEMORY_BYTES, used - memory->shown);
    total += used - memory->shown;
    memory->shown = used;
}

void memory_end(struct script_memory *memory)
{
    if (memory->alarmed)
        unhook(memory);
    show(memory, 0);
    memory->ending = true;
    if (!memory->pause)
        lua_setallocf(memory->L, memory->allocate, memory->arena);
}

/* Runs protected: a collection allocates, too. */
static int collect(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

/* Where little is left, collections begin sooner, so that garbage does not fill it. */
static void set_pace(struct script_memory *memory)
{
    size_t room = memory->used < memory->max ? memory->max - memory->used : 0;
    size_t percent = 100 + 100 * (room / 4) / larger(memory->used, 1);
    lua_gc(memory->L, LUA_GCSETPAUSE, percent < PAUSE_PERCENT ? (int)percent : PAUSE_PERCENT);
    lua_gc(memory->L, LUA_GCRESTART, -1);
    memory->collect_at =
        larger(memory->max / 2, memory->used + larger(room / 2, memory->max / STEPS));
}

void memory_collect(struct script_memory *memory)
{
    if (memory->alarmed)
        unhook(memory);
    memory->alarm = SIZE_MAX; /* not for what collecting takes itself */
    if (lua_cpcall(memory->L, collect, NULL) != 0)
        lua_pop(memory->L, 1);
    memory->over = is_over(memory);
    set_alarm(memory);
    set_pace(memory);
}

/* Runs protected, as collect. */
static int tidy(lua_State *L)
{
    struct script_memory *memory = lua_touserdata(L, 1);
    int64_t until_us = clock_now_us() + TIDY_US;
    while (memory->tidy_cycles && clock_now_us() < until_us)
        memory->tidy_cycles -= (unsigned)lua_gc(L, LUA_GCSTEP, STEP_LEAST);
    return 0;
}

void memory_tidy(struct script_memory *memory)
{
    if (!memory->tidy_cycles && memory->used > memory->tidy_at)
        memory->tidy_cycles = TIDY_CYCLES;
    if (!memory->tidy_cycles || memory->alarmed)
        return;
    memory->alarm = SIZE_MAX; /* not for what collecting takes itself */
    if (lua_cpcall(memory->L, tidy, memory) != 0)
        lua_pop(memory->L, 1);
    set_alarm(memory);
    if (!memory->tidy_cycles)
        memory->tidy_at = memory->used + larger(memory->used / TIDY_PART, TIDY_MIN_BYTES);
    memory_rest(memory);
}

void memory_rest(struct script_memory *memory)
{
    if (memory->used > memory->collect_at)
        memory_collect(memory);
    if (memory->used != (size_t)memory->shown)
        show(memory, (int64_t)memory->used);
}

int64_t memory_total(void)
{
    return total;
}
