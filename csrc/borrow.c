/*
 * clone3(CLONE_VM|CLONE_VFORK): a new process without a copy of the caller's memory.
 *
 * The caller may be a Python process of many gigabytes and threads. fork() would copy its page
 * tables and run its at-fork handlers. Here the child runs on the caller's pages, on a stack of
 * its own, while the calling thread stands still.
 */
#include "borrow.h"

#include "mountapi.h"

#include <linux/sched.h>
#include <signal.h>
#include <sys/wait.h>

/* clone3 whose child enters entry() on the new stack and never returns. A wrapper function could
 * not return twice on two stacks, so the child's first instructions are written out. */
static long clone_entry(struct clone_args *arguments, void (*entry)(void *), void *argument)
{
#if defined(__x86_64__)
    /* Not rbp, which ends the child's stack frames, nor what a system call or the entry's first
     * argument takes. */
    register void *r12 __asm__("r12") = argument;
    register void (*r13)(void *) __asm__("r13") = entry;
    long result;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %[argument], %%rdi\n\t"
                     "call *%[entry]\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "a"(__NR_clone3), "D"(arguments),
                       "S"(sizeof(*arguments)), [argument] "r"(r12), [entry] "r"(r13)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = __NR_clone3;
    register long x0 __asm__("x0") = (long)arguments;
    register long x1 __asm__("x1") = sizeof(*arguments);
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, %[argument]\n\t"
                     "blr %[entry]\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), [argument] "r"(argument), [entry] "r"(entry)
                     : "memory");
    return x0;
#endif
}

/* Signals are blocked around the clone: a handler of the caller must not run in the child, which
 * shares its memory. An executed program starts with all of them blocked. */
long borrow_on(struct borrow_stack *stack, uint64_t flags, int32_t cgroup_fd, void (*entry)(void *),
               void *argument, int32_t *pidfd)
{
    int handle = -1;
    uint64_t all = ~0UL, before;
    struct clone_args arguments = {
        .flags = flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)&handle,
        .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD, /* that of who clones, then */
        .stack = (uint64_t)(uintptr_t)stack->bytes,
        .stack_size = sizeof(stack->bytes),
    };

    if (cgroup_fd >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup_fd;
    }
    sys_call(__NR_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
    long pid = clone_entry(&arguments, entry, argument);
    sys_call(__NR_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
    *pidfd = handle;
    return pid;
}

long borrow(uint64_t flags, int32_t cgroup_fd, void (*entry)(void *), void *argument,
            int32_t *pidfd)
{
    struct borrow_stack stack;

    return borrow_on(&stack, flags, cgroup_fd, entry, argument, pidfd);
}

void borrow_end(int32_t pidfd)
{
    siginfo_t info;

    while (sys_call(__NR_waitid, P_PIDFD, pidfd, &info, WEXITED | __WALL, NULL) == -EINTR)
        ;
    sys_call(__NR_close, pidfd);
}
