/*
 * What an attendant may ask of the kernel once it serves: seccomp(2) with a filter written by hand,
 * for there is no library here. It reads what a container sends, so that a mistake in it must not
 * become more than a mistake: no program is executed, nothing written, no process looked into, and
 * no descriptor taken over from elsewhere. Anything else ends it.
 */
#include "parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sys/socket.h>

#ifndef SECCOMP_RET_KILL_PROCESS
#define SECCOMP_RET_KILL_PROCESS 0x80000000U
#endif
#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define PERMIT(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), ALLOW

long restrict_calls(void)
{
    struct sock_filter program[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        KILL,
        LOAD(nr),
        PERMIT(__NR_epoll_pwait),
        PERMIT(__NR_recvfrom),
        PERMIT(__NR_sendto),
        PERMIT(__NR_clock_gettime),
        PERMIT(__NR_newfstatat),
        PERMIT(__NR_close),
        PERMIT(__NR_connect),
        PERMIT(__NR_epoll_ctl),
        PERMIT(__NR_getrandom),
        PERMIT(__NR_accept4),
        PERMIT(__NR_shutdown),
        PERMIT(__NR_setsockopt),
        PERMIT(__NR_getsockopt),
        PERMIT(__NR_getsockname),
        PERMIT(__NR_fstat),
        PERMIT(__NR_munmap),
        PERMIT(__NR_madvise),
        PERMIT(__NR_recvmsg),
        PERMIT(__NR_sendmsg),
        PERMIT(__NR_exit_group),
        /* socket(2) of the internet's families, openat(2) for reading, mmap(2) for reading; the ALLOW
         * in between is that of the first two. */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 0, 4),
        LOAD(args[0]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 8, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 7, 0),
        KILL,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 3),
        LOAD(args[2]),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, 0, 3),
        KILL,
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 2, 0),
        KILL,
        ALLOW,
        LOAD(args[2]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_READ, 0, 1),
        ALLOW,
        KILL,
    };
    const struct sock_fprog filter = {sizeof(program) / sizeof(*program), program};

    long result = sys_call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (result < 0)
        return result;
    return sys_call(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}
