/*
 * The keeper: one small process beside a program of others that serves a container, such as pasta.
 *
 * Such a program knows nothing of containers: some end when the network namespace is gone, some never do. The
 * keeper is its parent, waits for the end of the container, and kills it then; when the keeper itself is killed the
 * kernel kills the program (PR_SET_PDEATHSIG). The program gets /dev/null, a pipe to say that it is ready, a pipe
 * for its errors, and nothing else of the caller's: no descriptor, no directory, no environment but the block's.
 */
#include "init.h"

#include "../keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/socket.h>

#define SIGNAL_CHILD 17
#define SET_MASK 2
#define BY_PIDFD 3 /* P_PIDFD */
#define ENDED 4    /* WEXITED */

static const struct keeper_block *map_block(long fd)
{
    uint64_t size;
    const struct keeper_block *block = launch_map(fd, sizeof(*block), KEEPER_MAX_SIZE, &size);

    if (!block || block->magic != KEEPER_MAGIC || block->version != KEEPER_VERSION ||
        block->size != size || block->string_count > KEEPER_MAX_STRINGS || !block->argument_count ||
        block->argument_count > block->string_count ||
        (block->ready_number != 1 && block->ready_number != 3) ||
        !launch_has_strings((const char *)(block + 1), (const char *)block + size,
                            block->string_count))
        return NULL;
    return block;
}

/* The program cannot be executed; what says so goes where its own errors would. */
__attribute__((noreturn)) static void refuse(const char *path, long code)
{
    char text[PATH_SIZE + 64];
    size_t used = 0;

    text_append(text, sizeof(text), &used, "cannot execute ");
    text_append(text, sizeof(text), &used, path);
    text_append(text, sizeof(text), &used, ": error ");
    text_append_number(text, sizeof(text), &used, (uint64_t)-code);
    text_append(text, sizeof(text), &used, "\n");
    sys_call(__NR_write, 2, text, used);
    leave(127);
}

/* In the child. The descriptors are first moved above those that they become. */
__attribute__((noreturn)) static void become_program(const struct keeper_block *block, long keeper)
{
    const char *vectors[KEEPER_MAX_STRINGS + 2], *at = (const char *)(block + 1);
    const char **environment = vectors + block->argument_count + 1;
    uint64_t none = 0;

    sys_call(__NR_prctl, PR_SET_PDEATHSIG, SIGNAL_KILL, 0, 0, 0);
    if (sys_call(__NR_getppid, 0) != keeper)
        leave(125);
    for (uint32_t i = 0; i < block->string_count; i++) {
        vectors[i < block->argument_count ? i : i + 1] = at;
        at += text_length(at) + 1;
    }
    vectors[block->argument_count] = vectors[block->string_count + 1] = NULL;
    long errors = sys_call(__NR_fcntl, block->error_fd, F_DUPFD, 4);
    long ready = sys_call(__NR_fcntl, block->ready_fd, F_DUPFD, 4);
    long null = sys_call(__NR_openat, AT_FDCWD, "/dev/null", O_RDWR);
    if (errors < 0 || ready < 0 || null < 0)
        leave(125);
    if (null != 0)
        sys_call(__NR_dup3, null, 0, 0);
    sys_call(__NR_dup3, 0, 1, 0);
    sys_call(__NR_dup3, errors, 2, 0);
    sys_call(__NR_dup3, ready, block->ready_number, 0);
    sys_call(__NR_close_range, block->ready_number == 3 ? 4 : 3, ~0U, 0);
    sys_call(__NR_rt_sigprocmask, SET_MASK, &none, NULL, sizeof(none));
    long result = sys_call(__NR_execve, vectors[0], vectors, environment);
    refuse(vectors[0], result);
}

/* What the program goes on writing is read and forgotten: it would wait for ever on a full pipe, and
 * die of one that nobody reads. */
static void drain(int fd)
{
    char waste[4096];

    sys_call(__NR_read, fd, waste, sizeof(waste));
}

/* Until the container or the program has ended. While the caller is there it reads the errors. */
static void wait_for_an_end(const struct keeper_block *block, int program)
{
    struct pollfd entries[] = {
        {block->watched_fd, POLLIN, 0},
        {program, POLLIN, 0},
        {block->control_fd, POLLIN, 0},
        {-1, POLLIN, 0},
    };

    for (;;) {
        char byte;
        long count = sys_call(__NR_ppoll, entries, 4, NULL, NULL, 8);
        if (count == -EINTR)
            continue;
        if (count < 0 || entries[0].revents || entries[1].revents)
            return;
        if (entries[2].revents) {
            /* The end of the socket, or "steady": the caller may stay to hear of the end. */
            if (sys_call(__NR_recvfrom, block->control_fd, &byte, 1, MSG_DONTWAIT, NULL, NULL) <= 0)
                entries[2].fd = -1;
            entries[3].fd = block->drain_fd;
        }
        if (entries[3].revents & POLLIN)
            drain(block->drain_fd);
        else if (entries[3].revents)
            entries[3].fd = -1;
    }
}

__attribute__((noreturn)) static void keep(const struct keeper_block *block)
{
    int program = -1;
    long self = sys_call(__NR_getpid, 0);
    struct clone_args arguments = {
        .flags = CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&program,
        .exit_signal = SIGNAL_CHILD,
    };

    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid == 0)
        become_program(block, self);
    if (pid < 0)
        leave(125);
    path_close(block->error_fd);
    path_close(block->ready_fd);
    /* Its descriptors and memory are nobody's business, the container's least of all. */
    sys_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    sys_call(__NR_prctl, PR_SET_NAME, "pyrtc-keeper", 0, 0, 0);
    wait_for_an_end(block, program);
    sys_call(__NR_pidfd_send_signal, program, SIGNAL_KILL, NULL, 0);
    while (sys_call(__NR_waitid, BY_PIDFD, program, NULL, ENDED, NULL) == -EINTR)
        ;
    leave(0);
}

/* Close what of the caller's is not named in the block. */
static void leave_caller(const struct keeper_block *block)
{
    const int32_t *first = &block->watched_fd, *last = &block->held[KEEPER_MAX_HELD - 1];

    launch_keep_only(first, (size_t)(last - first) + 1);
    sys_call(__NR_chdir, "/");
}

/* As with the monitor, the launcher is the caller's child and ends at once, so that the keeper is nobody's. */
void keeper_launch(long block_fd)
{
    struct clone_args arguments = {.exit_signal = SIGNAL_CHILD};
    const struct keeper_block *block = map_block(block_fd);

    if (!block)
        leave(125);
    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid)
        leave(pid < 0 ? 125 : 0);
    sys_call(__NR_setsid, 0);
    reset_signals();
    leave_caller(block);
    keep(block);
}
