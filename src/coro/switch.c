#include "coro/switch.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

/* Frame, from the saved stack pointer up: r15 r14 r13 r12 rbx rbp return-address. */
__asm__(".text\n"
        ".globl coro_switch\n"
        ".hidden coro_switch\n"
        ".type coro_switch, @function\n"
        ".align 16\n"
        "coro_switch:\n"
        "    .cfi_startproc\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size coro_switch, .-coro_switch\n");

void *coro_switch_prepare(char *base, size_t bytes, void (*entry)(void))
{
    enum { SAVED = 6 };
    uintptr_t *top = (uintptr_t *)(((uintptr_t)base + bytes) & ~(uintptr_t)15);
    /* The entry finds the stack as after a call: aligned to 16 minus the return address. */
    *--top = 0; /* a return address of 0 ends every backtrace here */
    *--top = (uintptr_t)entry;
    top -= SAVED;
    memset(top, 0, SAVED * sizeof(*top));
    return top;
}

#elif defined(__aarch64__)

/* Frame: x19..x30, then d8..d15; 20 words, 160 bytes. */
__asm__(".text\n"
        ".globl coro_switch\n"
        ".hidden coro_switch\n"
        ".type coro_switch, %function\n"
        ".align 4\n"
        "coro_switch:\n"
        "    .cfi_startproc\n"
        "    sub sp, sp, #160\n"
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
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
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
        "    add sp, sp, #160\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size coro_switch, .-coro_switch\n");

void *coro_switch_prepare(char *base, size_t bytes, void (*entry)(void))
{
    enum { SAVED = 20, X30 = 11 };
    uintptr_t *top = (uintptr_t *)(((uintptr_t)base + bytes) & ~(uintptr_t)15);
    top -= SAVED;
    memset(top, 0, SAVED * sizeof(*top));
    top[X30] = (uintptr_t)entry;
    return top;
}

#else
#error "src/coro/switch.c knows x86_64 and aarch64; add the switch for this machine"
#endif
