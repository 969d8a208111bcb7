/*
 * What programs without a C library share: the few functions of one that they need
 * (init/text.c), and their entry point.
 */
#ifndef PYRTC_FREESTANDING_H
#define PYRTC_FREESTANDING_H

#include "sys.h"

#include <stdbool.h>

size_t text_length(const char *text);
bool text_equal(const char *left, const char *right);
/* Append text to buffer at *used; false when it does not fit. */
bool text_append(char *buffer, size_t size, size_t *used, const char *text);
bool text_append_number(char *buffer, size_t size, size_t *used, uint64_t number);
long text_number(const char *text);

static inline long path_close(long fd)
{
    return sys_call(__NR_close, fd);
}

__attribute__((noreturn)) static inline void leave(int code)
{
    for (;;)
        sys_call(__NR_exit_group, code);
}

/* Execution begins in function(stack), where stack[0] is the number of arguments and the arguments
 * follow. */
#if defined(__x86_64__)
#define ENTRY_POINT(function)                                                                      \
    __asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, "             \
            "%rsp\n\tcall " #function "\n\tud2\n");
#else
#define ENTRY_POINT(function)                                                                      \
    __asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x0, sp\n\tbl " #function "\n\tbrk "     \
            "#1\n");
#endif

#endif
