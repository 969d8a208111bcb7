/*
 * The mounts inside the root. Each is made as a detached tree first and attached to a descriptor of
 * its target.
 */
#include "init.h"

#include <errno.h>
#include <linux/stat.h>

#define STATX_MASK (STATX_TYPE | STATX_INO)
#define OPTION_SIZE 256

#define TYPE_OF(mode) ((mode)&0170000)
#define TYPE_DIRECTORY 0040000

static long inspect(struct state *state, long fd, struct statx *about)
{
    state->call = "statx";
    return sys_call(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_MASK, about);
}

static uint64_t device_number(uint32_t major, uint32_t minor)
{
    return ((uint64_t)major << 32) | minor;
}

static uint64_t resolve_flags(const struct plan_op *op)
{
    return op->flags & PLAN_NO_LINKS ? RESOLVE_NO_SYMLINKS : 0;
}

/* What lies in /proc is the kernel's word, on which everything that reads it later relies. A target
 * that an image's link leads there is refused (CVE-2019-16884); one that is named as it is, without
 * links, was meant by the caller. */
static long refuse_proc(struct state *state, long at, uint64_t resolve)
{
    struct file_system about;

    if (resolve & RESOLVE_NO_SYMLINKS)
        return 0;
    state->call = "fstatfs";
    long result = sys_call(__NR_fstatfs, at, &about);
    if (result >= 0 && about.type == PROC_SUPER_MAGIC) {
        state->call = "refuse a target in /proc";
        result = -EPERM;
    }
    return result < 0 ? result : 0;
}

/* Attach the mount to target, which is made where it is missing: a directory for a directory, an
 * empty file otherwise. */
long mount_to(struct state *state, long mount, const char *target, bool directory, uint64_t resolve)
{
    long result, at = path_target(state, target, directory, resolve);

    if (at < 0)
        return at;
    result = refuse_proc(state, at, resolve);
    if (result >= 0) {
        state->call = "move_mount";
        state->detail = target;
        result = mount_attach(mount, (int)at, "");
    }
    path_close(at);
    return result < 0 ? result : 0;
}

/* Split "key=value"; a key alone is a flag. */
static long set_option(struct state *state, long fs, const char *option)
{
    char key[OPTION_SIZE];
    size_t length = 0;

    while (option[length] && option[length] != '=')
        length++;
    if (length >= sizeof(key))
        return -EINVAL;
    for (size_t i = 0; i < length; i++)
        key[i] = option[i];
    key[length] = '\0';
    state->call = "fsconfig";
    long result = mount_option(fs, key, option[length] ? option + length + 1 : NULL);
    if (result < 0)
        state->detail = option;
    return result;
}

/* /proc, /sys and /dev must be reached without links: an image whose /proc is a link would turn the
 * masks that follow against another directory (CVE-2023-27561). */
long mount_new(struct state *state, const struct plan_op *op)
{
    const char *type = plan_string(op, 0), *target = plan_string(op, 1);

    state->call = "fsopen";
    state->detail = type;
    long result, fs = mount_open(type);
    if (fs < 0)
        return fs;
    for (uint32_t i = 2; i < op->string_count; i++) {
        result = set_option(state, fs, plan_string(op, i));
        if (result < 0) {
            path_close(fs);
            return result;
        }
    }
    state->call = "fsmount";
    long mount = mount_create(fs, op->mode);
    path_close(fs);
    if (mount < 0)
        return mount;
    result = mount_to(state, mount, target, true, resolve_flags(op));
    if (result < 0)
        return result;
    if (text_equal(type, "proc"))
        state->proc_fd = (int)mount;
    else if (text_equal(target, "/dev"))
        state->dev_fd = (int)mount;
    else
        path_close(mount);
    return 0;
}

static long finish_bind(struct state *state, const struct plan_op *op, long mount,
                        const char *target)
{
    unsigned depth = op->flags & PLAN_RECURSIVE ? AT_RECURSIVE : 0;
    struct mount_attr attributes = {.attr_set = op->mode, .propagation = MOUNT_PRIVATE};
    struct statx about;

    long result = inspect(state, mount, &about);
    if (result < 0)
        return result;
    state->call = "mount_setattr";
    result = mount_attributes((int)mount, depth, &attributes);
    if (result < 0)
        return result;
    return mount_to(state, mount, target, TYPE_OF(about.stx_mode) == TYPE_DIRECTORY,
                    resolve_flags(op));
}

/* The caller looked at the source and says which inode it saw: a source that was swapped in between
 * is refused. */
long mount_bind(struct state *state, const struct plan_op *op)
{
    const char *source = plan_string(op, 0), *target = plan_string(op, 1);
    unsigned depth = op->flags & PLAN_RECURSIVE ? AT_RECURSIVE : 0;
    struct statx about;

    state->call = "open_tree";
    state->detail = source;
    long mount = mount_clone(AT_FDCWD, source, depth);
    if (mount < 0)
        return mount;
    long result = inspect(state, mount, &about);
    if (result >= 0 && (device_number(about.stx_dev_major, about.stx_dev_minor) != op->a ||
                        about.stx_ino != op->b))
        result = -ESTALE;
    if (result >= 0)
        result = finish_bind(state, op, mount, target);
    path_close(mount);
    return result;
}

long mount_bind_slot(struct state *state, const struct plan_op *op)
{
    if (op->slot < 0)
        return -EINVAL;
    return finish_bind(state, op, state->plan.slots[op->slot], plan_string(op, 0));
}

/* Whether fd is the device that was meant and not a file that took its name. */
static long check_device(struct state *state, long fd, const struct plan_op *op)
{
    struct statx about;
    long result = inspect(state, fd, &about);

    if (result < 0)
        return result;
    if (TYPE_OF(about.stx_mode) != op->b ||
        device_number(about.stx_rdev_major, about.stx_rdev_minor) != op->a)
        return -ENODEV;
    return 0;
}

/* The name of a path directly below /dev, or NULL. */
static const char *name_in_dev(const char *path)
{
    static const char prefix[] = "/dev/";

    for (unsigned i = 0; i < sizeof(prefix) - 1; i++)
        if (path[i] != prefix[i])
            return NULL;
    path += sizeof(prefix) - 1;
    for (const char *at = path; *at; at++)
        if (*at == '/')
            return NULL;
    return *path ? path : NULL;
}

/* A device node is bound from the host's, in a tree that is otherwise mounted nodev: a node that
 * the container makes itself is never a device, with or without a device cgroup. The bind is
 * read-only, which a device does not care for but chmod(2) and chown(2) do: the inode is the
 * host's. */
long mount_device(struct state *state, const struct plan_op *op)
{
    const char *source = plan_string(op, 0), *target = plan_string(op, 1);
    struct mount_attr attributes = {.attr_set =
                                        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                                    .attr_clr = MOUNT_ATTR_NODEV};
    const char *name = state->dev_fd >= 0 ? name_in_dev(target) : NULL;

    state->call = "open_tree";
    state->detail = source;
    long mount = mount_clone(AT_FDCWD, source, AT_SYMLINK_NOFOLLOW);
    if (mount < 0)
        return mount;
    long result = check_device(state, mount, op);
    if (result >= 0) {
        state->call = "mount_setattr";
        /* In a user namespace nodev of the host's mount is locked; there it is clear on /dev, or
         * the bind is useless. */
        result = mount_attributes((int)mount, 0, &attributes);
        if (result == -EPERM) {
            attributes.attr_clr = 0;
            result = mount_attributes((int)mount, 0, &attributes);
        }
    }
    if (result >= 0 && name) {
        /* Our own fresh tmpfs: no link can be in the way. */
        state->call = "mknodat";
        result = sys_call(__NR_mknodat, state->dev_fd, name, 0100600, 0);
        state->call = "move_mount";
        if (result >= 0)
            result = mount_attach(mount, state->dev_fd, name);
    } else if (result >= 0) {
        result = mount_to(state, mount, target, false, 0);
    }
    path_close(mount);
    return result < 0 ? result : 0;
}

/* What hides a path: an empty read-only directory, or the null device, taken from the host and
 * checked, because the container's own could be anything (CVE-2025-31133). */
static long make_cover(struct state *state, bool directory)
{
    struct mount_attr attributes = {.attr_set =
                                        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC};
    static const struct plan_op null_device = {.a = ((uint64_t)1 << 32) | 3, .b = 0020000};
    long cover, result;

    state->call = "open_tree";
    if (directory) {
        result = sys_call(__NR_mkdirat, state->scratch_fd, "empty", 0555);
        if (result < 0 && result != -EEXIST)
            return result;
        attributes.attr_set |= MOUNT_ATTR_NODEV;
        cover = mount_clone(state->scratch_fd, "empty", 0);
        result = cover;
    } else {
        cover = mount_clone(AT_FDCWD, "/dev/null", AT_SYMLINK_NOFOLLOW);
        result = cover < 0 ? cover : check_device(state, cover, &null_device);
    }
    if (result >= 0) {
        state->call = "mount_setattr";
        result = mount_attributes((int)cover, 0, &attributes);
    }
    if (result < 0 && cover >= 0)
        path_close(cover);
    return result < 0 ? result : cover;
}

long mount_mask(struct state *state, const struct plan_op *op)
{
    const char *target = plan_string(op, 0);
    struct statx about;
    long at = path_open(state, target, O_PATH, resolve_flags(op));

    if (at == -ENOENT)
        return 0;
    if (at < 0)
        return at;
    long result = inspect(state, at, &about);
    long cover = result < 0 ? result : make_cover(state, TYPE_OF(about.stx_mode) == TYPE_DIRECTORY);
    if (cover >= 0) {
        state->call = "move_mount";
        result = mount_attach(cover, (int)at, "");
        path_close(cover);
    } else {
        result = cover;
    }
    path_close(at);
    return result < 0 ? result : 0;
}

long mount_readonly(struct state *state, const struct plan_op *op)
{
    const char *target = plan_string(op, 0);
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    long at = path_open(state, target, O_PATH, resolve_flags(op));

    if (at == -ENOENT)
        return 0;
    if (at < 0)
        return at;
    state->call = "open_tree";
    long mount = mount_clone((int)at, "", AT_EMPTY_PATH | AT_RECURSIVE);
    long result = mount;
    if (mount >= 0) {
        state->call = "mount_setattr";
        result = mount_attributes((int)mount, AT_RECURSIVE, &attributes);
    }
    if (result >= 0) {
        state->call = "move_mount";
        result = mount_attach(mount, (int)at, "");
    }
    if (mount >= 0)
        path_close(mount);
    path_close(at);
    return result < 0 ? result : 0;
}
