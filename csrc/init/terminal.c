/*
 * A terminal of the container's own devpts. Its slave is reached through the master (TIOCGPTPEER),
 * never through a path in the container (CVE-2025-52565).
 */
#include "init.h"

#include <asm/ioctls.h>
#include <errno.h>

#define DEVPTS_SUPER_MAGIC 0x1cd1

struct window_size {
    unsigned short rows, columns, x, y;
};

long take_terminal(struct state *state)
{
    state->call = "ioctl TIOCSCTTY";
    return sys_call(__NR_ioctl, 0, TIOCSCTTY, 0);
}

__attribute__((noreturn)) void drain_terminal(int master)
{
    static char bytes[4096];
    long size;

    sys_call(__NR_dup3, master, 0, O_CLOEXEC);
    sys_call(__NR_close_range, 1, ~0U, 0);
    do
        size = sys_call(__NR_read, 0, bytes, sizeof(bytes));
    while (size > 0 || size == -EINTR);
    leave(0);
}

static long bind_console(struct state *state, long slave)
{
    if (state->dev_fd < 0)
        return 0;
    state->call = "open_tree";
    state->detail = "/dev/console";
    long result, mount = mount_clone((int)slave, "", AT_EMPTY_PATH);
    if (mount < 0)
        return mount;
    state->call = "mknodat";
    result = sys_call(__NR_mknodat, state->dev_fd, "console", 0100600, 0);
    if (result >= 0) {
        state->call = "move_mount";
        result = mount_attach(mount, state->dev_fd, "console");
    }
    path_close(mount);
    return result;
}

static long adopt_terminal(struct state *state, long slave)
{
    long result = 0;

    state->call = "dup3";
    for (int fd = 0; fd < 3 && result >= 0; fd++)
        result = sys_call(__NR_dup3, slave, fd, 0);
    /* The session of a process that joins a container is the one that PLAN_FORK makes. */
    return result < 0 || state->joined ? result : take_terminal(state);
}

/* A container that runs may have put anything in the place of its ptmx. */
static long check_devpts(struct state *state, long master)
{
    struct file_system about;

    state->call = "fstatfs";
    long result = sys_call(__NR_fstatfs, master, &about);
    if (result < 0)
        return result;
    return about.type == DEVPTS_SUPER_MAGIC ? 0 : -ENOTTY;
}

/* Executed after /dev/pts is mounted and before the pivot; setsid() was the first thing this
 * program did. */
long make_terminal(struct state *state, const struct plan_op *op)
{
    struct window_size size = {(unsigned short)op->a, (unsigned short)op->b, 0, 0};
    int unlocked = 0;

    long master = path_open(state, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, RESOLVE_NO_SYMLINKS);
    if (master < 0)
        return master;
    long result = check_devpts(state, master);
    if (result >= 0) {
        state->call = "ioctl TIOCSPTLCK";
        result = sys_call(__NR_ioctl, master, TIOCSPTLCK, &unlocked);
    }
    if (result < 0)
        return result;
    state->call = "ioctl TIOCGPTPEER";
    long slave = sys_call(__NR_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return slave;
    state->call = "ioctl TIOCSWINSZ";
    result = size.rows || size.columns ? sys_call(__NR_ioctl, slave, TIOCSWINSZ, &size) : 0;
    if (result >= 0)
        result = bind_console(state, slave);
    if (result >= 0)
        result = adopt_terminal(state, slave);
    if (result >= 0 && op->flags & PLAN_DETACHED)
        state->master_fd = (int)master;
    else if (result >= 0)
        result = report_descriptor(state, REPORT_TERMINAL, 0, (int)master);
    path_close(slave);
    if (state->master_fd < 0)
        path_close(master);
    state->terminal = true;
    return result < 0 ? result : 0;
}
