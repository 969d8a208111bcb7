/*
 * A terminal of the container's own devpts. Its slave is reached through the master (TIOCGPTPEER),
 * never through a path in the container (CVE-2025-52565).
 */
#include "init.h"

#include <asm/ioctls.h>
#include <errno.h>

struct window_size {
    unsigned short rows, columns, x, y;
};

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
    if (result < 0)
        return result;
    state->call = "ioctl TIOCSCTTY";
    return sys_call(__NR_ioctl, 0, TIOCSCTTY, 0);
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
    state->call = "ioctl TIOCSPTLCK";
    long result = sys_call(__NR_ioctl, master, TIOCSPTLCK, &unlocked);
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
    if (result >= 0)
        result = report_terminal(state, (int)master);
    path_close(slave);
    path_close(master);
    state->terminal = true;
    return result < 0 ? result : 0;
}
