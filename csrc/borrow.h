/*
 * Running a function in a new process that borrows this one's memory until it execs or exits.
 */
#ifndef PYRTC_BORROW_H
#define PYRTC_BORROW_H

#include <stdint.h>
#include <sys/wait.h>

#ifndef P_PIDFD /* an enumerator of the C library, if it knows it */
#define P_PIDFD 3
#endif

/* Clone with flags (CLONE_NEW* and CLONE_FILES), call entry(argument) in the child, which must not
 * return, and wait until it has executed a program or is gone. Returns its process id with *pidfd,
 * or -errno. cgroup_fd: where it is born, or -1.
 *
 * The child shares this memory: entry may use raw system calls and its argument, no errno, no
 * malloc, no lock. */
long borrow(uint64_t flags, int32_t cgroup_fd, void (*entry)(void *), void *argument,
            int32_t *pidfd);

struct borrow_stack {
    char bytes[16384] __attribute__((aligned(16)));
};

/* The same from a borrowing child, whose own stack has no room for another: with CLONE_PARENT the
 * new process is a child of who borrowed first. */
long borrow_on(struct borrow_stack *stack, uint64_t flags, int32_t cgroup_fd, void (*entry)(void *),
               void *argument, int32_t *pidfd);

/* Wait for the end of a borrowing child and close its pidfd. */
void borrow_end(int32_t pidfd);

#endif
