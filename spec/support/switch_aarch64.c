/* The context switch of aarch64 as a program of its own: ends with 0 if registers that calls keep
 * are kept, and the new stack is used and aligned. See spec/aarch64_spec.lua. */
#include "coro/switch.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { STACK_BYTES = 65536, ROUNDS = 1000, INTEGERS = 10, DOUBLES = 8 };

struct registers {
    uint64_t x[INTEGERS]; /* x19 to x28 */
    uint64_t d[DOUBLES];  /* d8 to d15 */
};

/* As coro_switch, with base + 19 in x19 and so on when it is called; `seen` gets what they have
 * when it returns. */
void switch_filled(void **save, void *to, struct registers *seen, uint64_t base);
__asm__(".text\n"
        ".globl switch_filled\n"
        ".type switch_filled, %function\n"
        ".align 4\n"
        "switch_filled:\n"
        "    sub sp, sp, #176\n"
        "    stp x19, x20, [sp, #0]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    str x2, [sp, #160]\n"
        "    add x19, x3, #19\n"
        "    add x20, x3, #20\n"
        "    add x21, x3, #21\n"
        "    add x22, x3, #22\n"
        "    add x23, x3, #23\n"
        "    add x24, x3, #24\n"
        "    add x25, x3, #25\n"
        "    add x26, x3, #26\n"
        "    add x27, x3, #27\n"
        "    add x28, x3, #28\n"
        "    add x9, x3, #8\n"
        "    fmov d8, x9\n"
        "    add x9, x3, #9\n"
        "    fmov d9, x9\n"
        "    add x9, x3, #10\n"
        "    fmov d10, x9\n"
        "    add x9, x3, #11\n"
        "    fmov d11, x9\n"
        "    add x9, x3, #12\n"
        "    fmov d12, x9\n"
        "    add x9, x3, #13\n"
        "    fmov d13, x9\n"
        "    add x9, x3, #14\n"
        "    fmov d14, x9\n"
        "    add x9, x3, #15\n"
        "    fmov d15, x9\n"
        "    bl coro_switch\n"
        "    ldr x9, [sp, #160]\n"
        "    stp x19, x20, [x9, #0]\n"
        "    stp x21, x22, [x9, #16]\n"
        "    stp x23, x24, [x9, #32]\n"
        "    stp x25, x26, [x9, #48]\n"
        "    stp x27, x28, [x9, #64]\n"
        "    stp d8, d9, [x9, #80]\n"
        "    stp d10, d11, [x9, #96]\n"
        "    stp d12, d13, [x9, #112]\n"
        "    stp d14, d15, [x9, #128]\n"
        "    ldp x19, x20, [sp, #0]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #176\n"
        "    ret\n"
        ".size switch_filled, .-switch_filled\n");

static void *main_context, *other_context;
static char stack[STACK_BYTES];
static int rounds;

static void expect(int right, const char *what)
{
    if (right)
        return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static void switch_and_check(void **save, void *to, uint64_t base)
{
    struct registers seen = {0};
    switch_filled(save, to, &seen, base);
    for (unsigned i = 0; i < INTEGERS; i++)
        expect(seen.x[i] == base + 19 + i, "integers are kept");
    for (unsigned i = 0; i < DOUBLES; i++)
        expect(seen.d[i] == base + 8 + i, "doubles are kept");
}

static void entry(void)
{
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    expect(frame > (uintptr_t)stack && frame <= (uintptr_t)stack + STACK_BYTES,
           "the stack is its own");
    expect(frame % 16 == 0, "the stack is aligned");
    for (;;) {
        rounds++;
        switch_and_check(&other_context, main_context, 2000u * (unsigned)rounds);
    }
}

int main(void)
{
    other_context = coro_switch_prepare(stack, sizeof(stack), entry);
    for (int round = 1; round <= ROUNDS; round++) {
        switch_and_check(&main_context, other_context, 1000000u + (unsigned)round);
        expect(rounds == round, "it comes back");
    }
    puts("ok");
    return 0;
}
