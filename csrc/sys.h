/*
 * System calls without a C library: each returns the kernel's value, or -errno.
 *
 * pyrtc-init is freestanding (no libc start-up, no errno, no allocation), and the code that runs in
 * the child of a CLONE_VM clone must not touch the parent's errno or stdio. The mechanisms both
 * sides share (overlay.c) are written against these wrappers, so that they behave the same in the
 * library and in the helper.
 */
#ifndef PYRTC_SYS_H
#define PYRTC_SYS_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
static inline long sys_call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long sys_call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "pyrtc supports x86_64 and aarch64"
#endif

/* Debian 12's kernel headers are those of 6.1; newer numbers are the same on every architecture. */
#ifndef __NR_mount_setattr
#define __NR_mount_setattr 442
#endif

#define SYS_ARG(x) ((long)(x))
#define sys_call(number, ...) SYS_PICK(__VA_ARGS__, 6, 5, 4, 3, 2, 1)(number, __VA_ARGS__)
#define SYS_PICK(a, b, c, d, e, f, count, ...) SYS_CALL##count
#define SYS_CALL1(n, a) sys_call6(n, SYS_ARG(a), 0, 0, 0, 0, 0)
#define SYS_CALL2(n, a, b) sys_call6(n, SYS_ARG(a), SYS_ARG(b), 0, 0, 0, 0)
#define SYS_CALL3(n, a, b, c) sys_call6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), 0, 0, 0)
#define SYS_CALL4(n, a, b, c, d) sys_call6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), 0, 0)
#define SYS_CALL5(n, a, b, c, d, e)                                                                \
    sys_call6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), 0)
#define SYS_CALL6(n, a, b, c, d, e, f)                                                             \
    sys_call6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), SYS_ARG(f))

#endif
