/*
 * The root file system: make the mount namespace private, put the new root somewhere in it, leave
 * the old one.
 */
#include "init.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/stat.h>

/* This process's root becomes that of the mount namespace. */
static long leave_chroot(struct state *state)
{
    state->call = "pidfd_open";
    long result, self = sys_call(__NR_pidfd_open, sys_call(__NR_getpid, 0), 0);
    if (self < 0)
        return self;
    state->call = "setns";
    result = sys_call(__NR_setns, self, CLONE_NEWNS);
    path_close(self);
    return result;
}

/* The caller may live in a chroot, and does not have to know. All mounts are made private, also
 * those outside it, and while the plan's paths are resolved its root is this process's. */
static long make_private(struct state *state)
{
    struct statx caller, top;

    state->detail = NULL;
    state->call = "open";
    long result, root = sys_call(__NR_openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return root;
    result = leave_chroot(state);
    if (result < 0)
        return result;
    state->call = "make all mounts private";
    result = sys_call(__NR_mount, NULL, "/", NULL, MOUNT_PRIVATE | MOUNT_RECURSE, NULL);
    if (result < 0)
        return result;
    state->call = "statx";
    result = sys_call(__NR_statx, root, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &caller);
    if (result >= 0)
        result = sys_call(__NR_statx, AT_FDCWD, "/", 0, STATX_INO | STATX_MNT_ID, &top);
    if (result < 0)
        return result;
    state->in_chroot = caller.stx_mnt_id != top.stx_mnt_id || caller.stx_ino != top.stx_ino;
    if (state->in_chroot) {
        state->call = "fchdir";
        result = sys_call(__NR_fchdir, root);
        state->call = "chroot";
        if (result >= 0)
            result = sys_call(__NR_chroot, ".");
    }
    path_close(root);
    return result;
}

/* A tmpfs over a directory of the old root that nobody needs any more, such as a layer that is
 * already open. What is put into scratch is reached through scratch_fd only and is gone with the
 * old root, except what was bound into the new one. Where there is no such directory it covers the
 * old root itself; absolute paths still start below it. */
long root_prepare(struct state *state, const char *size, const char *cover)
{
    long result = make_private(state);
    if (result < 0)
        return result;
    state->call = "fsopen tmpfs";
    long fs = mount_open("tmpfs");
    if (fs < 0)
        return fs;
    state->call = "fsconfig tmpfs";
    result = mount_option(fs, "mode", "0755");
    if (result >= 0 && *size)
        result = mount_option(fs, "size", size);
    long mount = result < 0 ? result : mount_create(fs, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    path_close(fs);
    if (mount < 0)
        return mount;
    state->scratch_fd = (int)mount;
    state->call = "move_mount";
    state->root_covered = !*cover || text_equal(cover, "/");
    result = mount_attach(mount, AT_FDCWD, state->root_covered ? "/" : cover);
    if (result < 0)
        return result;
    state->call = "mkdirat";
    return sys_call(__NR_mkdirat, mount, "root", 0755);
}

/* Attach the detached mount of the new root and remember its directory. */
long root_adopt(struct state *state, long mount)
{
    state->call = "move_mount";
    long result = mount_attach(mount, state->scratch_fd, "root");
    state->root_fd = (int)mount;
    return result < 0 ? result : 0;
}

long root_bind(struct state *state, const struct plan_op *op)
{
    struct mount_attr attributes = {.attr_set = op->flags & PLAN_DEVICES ? 0 : MOUNT_ATTR_NODEV};
    const char *directory = plan_string(op, 0);

    state->call = "open_tree";
    state->detail = directory;
    long mount = mount_clone(AT_FDCWD, directory, 0);
    if (mount < 0)
        return mount;
    state->call = "mount_setattr";
    attributes.propagation = MOUNT_PRIVATE;
    long result = mount_attributes((int)mount, 0, &attributes);
    if (result >= 0)
        result = root_prepare(state, "", op->string_count > 1 ? plan_string(op, 1) : directory);
    return result < 0 ? result : root_adopt(state, mount);
}

/* The root is a directory of scratch, which is memory: what is put into it goes with the mount
 * namespace. */
long root_tmpfs(struct state *state, const struct plan_op *op)
{
    struct mount_attr attributes = {.attr_set = op->flags & PLAN_DEVICES ? 0 : MOUNT_ATTR_NODEV,
                                    .attr_clr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    long mount, result = root_prepare(state, plan_text(op), "");

    if (result < 0)
        return result;
    state->call = "mkdirat";
    result = sys_call(__NR_mkdirat, state->scratch_fd, "upper", op->mode);
    if (result < 0)
        return result;
    state->call = "open_tree";
    mount = mount_clone(state->scratch_fd, "upper", 0);
    if (mount < 0)
        return mount;
    state->call = "mount_setattr";
    result = mount_attributes((int)mount, 0, &attributes);
    return result < 0 ? result : root_adopt(state, mount);
}

long root_slot(struct state *state, const struct plan_op *op)
{
    long result = op->slot < 0 ? -EINVAL : root_prepare(state, "", plan_string(op, 0));

    return result < 0 ? result : root_adopt(state, state->plan.slots[op->slot]);
}

long root_readonly(struct state *state, const struct plan_op *op)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};

    const char *path = op->string_count ? plan_string(op, 0) : "/";
    long result, mount = state->root_fd;

    if (op->string_count)
        mount = path_open(state, path, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (mount < 0)
        return mount;
    state->call = "mount_setattr";
    state->detail = path;
    result = mount_attributes((int)mount, 0, &attributes);
    if (op->string_count)
        path_close(mount);
    return result < 0 ? result : 0;
}

/* pivot_root(".", ".") stacks the old root on the new one. It is taken away from within: "." has
 * to be the old root then, for seen from the new one it is covered. Nothing of the host is
 * reachable afterwards, not even through a descriptor: all of them close before the command runs.
 * It is the namespace's own root that has to go, not that of a chroot: above a chroot the host would
 * stay, for a command that leaves one with another (CAP_SYS_CHROOT), and for setns.
 */
long root_pivot(struct state *state, const struct plan_op *op)
{
    (void)op;
    long result = state->in_chroot ? leave_chroot(state) : 0;
    if (result < 0)
        return result;
    state->call = "open";
    state->detail = "/";
    long old = sys_call(__NR_openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0)
        return old;
    state->call = "fchdir";
    result = sys_call(__NR_fchdir, state->root_fd);
    if (result < 0)
        return result;
    state->call = "pivot_root";
    result = sys_call(__NR_pivot_root, ".", ".");
    if (result < 0)
        return result;
    state->call = "fchdir";
    result = sys_call(__NR_fchdir, old);
    if (result < 0)
        return result;
    /* Each takes a grace period of the kernel's, so scratch had better not be in the way. */
    state->call = "umount2";
    if (state->root_covered && !state->in_chroot)
        result = sys_call(__NR_umount2, ".", DETACH);
    if (result >= 0)
        result = sys_call(__NR_umount2, ".", DETACH);
    path_close(old);
    if (result < 0)
        return result;
    state->call = "chdir";
    result = sys_call(__NR_chdir, "/");
    return result < 0 ? result : 0;
}
