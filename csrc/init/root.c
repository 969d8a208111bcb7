/*
 * The root file system: make the mount namespace private, put the new root somewhere in it, leave
 * the old one.
 */
#include "init.h"
#include "../overlay.h"

#include <errno.h>

#define MAX_LOWERS 500
#define MS_NOTHING 0
#define DETACH 2 /* MNT_DETACH */

/* A tmpfs that covers the old root directory. Absolute paths still start at the old root, which
 * stays this process's root directory below the new mount; what is put into scratch is reached
 * through scratch_fd only and is gone with the old root, except what was bound into the new one. */
static long prepare(struct state *state, const char *size)
{
    state->call = "make all mounts private";
    state->detail = NULL;
    long result = sys_call(__NR_mount, NULL, "/", NULL, MOUNT_PRIVATE | MOUNT_RECURSE, NULL);
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
    result = mount_attach(mount, AT_FDCWD, "/");
    if (result < 0)
        return result;
    state->call = "mkdirat";
    return sys_call(__NR_mkdirat, mount, "root", 0755);
}

/* Attach the detached mount of the new root and remember its directory. */
static long adopt(struct state *state, long mount)
{
    state->call = "move_mount";
    long result = mount_attach(mount, state->scratch_fd, "root");
    state->root_fd = (int)mount;
    return result < 0 ? result : 0;
}

static long open_directory(struct state *state, int parent, const char *path)
{
    state->call = "open";
    state->detail = path;
    return sys_call(__NR_openat, parent, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static long open_layers(struct state *state, const struct plan_op *op, int32_t *lowers,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        long fd = open_directory(state, AT_FDCWD, plan_string(op, i + 2));
        if (fd < 0)
            return fd;
        lowers[i] = (int32_t)fd;
    }
    return 0;
}

static bool append_descriptor(char *buffer, size_t size, size_t *used, int fd)
{
    char digits[12];
    unsigned at = sizeof(digits) - 1;

    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + fd % 10);
    while (fd /= 10);
    return text_append(buffer, size, used, "/proc/self/fd/") &&
           text_append(buffer, size, used, digits + at);
}

/* Before 6.7 the layers fit in one page of mount(2) options only, by the short names their
 * descriptors have in /proc. */
static long mount_overlay_old(struct state *state, const struct overlay *overlay)
{
    char data[4096];
    size_t used = 0;
    bool fits = text_append(data, sizeof(data), &used, "lowerdir=");

    for (uint32_t i = 0; i < overlay->lower_count && fits; i++)
        fits = (i == 0 || text_append(data, sizeof(data), &used, ":")) &&
               append_descriptor(data, sizeof(data), &used, overlay->lower_fds[i]);
    fits =
        fits && text_append(data, sizeof(data), &used, ",upperdir=") &&
        append_descriptor(data, sizeof(data), &used, overlay->upper_fd) &&
        text_append(data, sizeof(data), &used, ",workdir=") &&
        append_descriptor(data, sizeof(data), &used, overlay->work_fd) &&
        text_append(data, sizeof(data), &used,
                    overlay->flags & PLAN_USERXATTR ? ",userxattr" : ",redirect_dir=nofollow") &&
        text_append(data, sizeof(data), &used, ",metacopy=off") &&
        (!(overlay->flags & PLAN_VOLATILE) || text_append(data, sizeof(data), &used, ",volatile"));
    if (!fits)
        return -E2BIG;
    /* mount(2) wants a path: stand in scratch, whose directory "root" is then a relative one. */
    state->call = "mount overlay";
    long result = sys_call(__NR_fchdir, state->scratch_fd);
    if (result >= 0)
        result = sys_call(__NR_mount, "overlay", "root", "overlay", MS_NOTHING, data);
    if (result < 0)
        return result;
    long root = open_directory(state, state->scratch_fd, "root");
    state->detail = NULL;
    if (root < 0)
        return root;
    state->root_fd = (int)root;
    struct mount_attr attributes = {.attr_set = overlay->attributes};
    state->call = "mount_setattr";
    result = mount_attributes(state->root_fd, 0, &attributes);
    return result < 0 ? result : 0;
}

/* With PLAN_UPPER_TMPFS the R/W layer is in scratch: memory that is gone with the mount namespace.
 */
static long open_upper(struct state *state, const struct plan_op *op, struct overlay *overlay)
{
    int parent = AT_FDCWD;
    const char *upper = plan_string(op, 0), *work = plan_string(op, 1);

    if (op->flags & PLAN_UPPER_TMPFS) {
        parent = state->scratch_fd;
        upper = "upper", work = "work";
        state->call = "mkdirat";
        long result = sys_call(__NR_mkdirat, parent, upper, op->mode);
        if (result >= 0)
            result = sys_call(__NR_mkdirat, parent, work, 0700);
        /* "/" shows the attributes of the upper directory: those of the image's own root directory.
         */
        if (result >= 0 && (op->a || op->b))
            result = sys_call(__NR_fchownat, parent, upper, op->a, op->b, 0);
        if (result < 0)
            return result;
    }
    long fd = open_directory(state, parent, upper);
    if (fd < 0)
        return fd;
    overlay->upper_fd = (int32_t)fd;
    fd = open_directory(state, parent, work);
    if (fd < 0)
        return fd;
    overlay->work_fd = (int32_t)fd;
    state->detail = NULL;
    return 0;
}

long root_overlay(struct state *state, const struct plan_op *op)
{
    int32_t lowers[MAX_LOWERS];
    struct overlay overlay = {
        .lower_fds = lowers, .flags = op->flags, .attributes = MOUNT_ATTR_NODEV};

    if (op->string_count < 3 || op->string_count - 2 > MAX_LOWERS)
        return -EINVAL;
    if (op->flags & PLAN_DEVICES)
        overlay.attributes = 0;
    overlay.lower_count = op->string_count - 2;
    long result = open_layers(state, op, lowers, overlay.lower_count);
    if (result >= 0)
        result = prepare(state, op->blob_size ? plan_blob(op) : "");
    if (result >= 0)
        result = open_upper(state, op, &overlay);
    if (result < 0)
        return result;
    long mount = overlay_mount(&overlay, &state->call);
    result = mount == -EOPNOTSUPP ? mount_overlay_old(state, &overlay)
             : mount < 0          ? mount
                                  : adopt(state, mount);
    for (uint32_t i = 0; i < overlay.lower_count; i++)
        path_close(lowers[i]);
    return result;
}

long root_bind(struct state *state, const struct plan_op *op)
{
    struct mount_attr attributes = {.attr_set = op->flags & PLAN_DEVICES ? 0 : MOUNT_ATTR_NODEV};
    long mount, result = prepare(state, "");

    if (result < 0)
        return result;
    state->call = "open_tree";
    state->detail = plan_string(op, 0);
    mount = mount_clone(AT_FDCWD, state->detail, 0);
    if (mount < 0)
        return mount;
    state->call = "mount_setattr";
    result = mount_attributes((int)mount, 0, &attributes);
    return result < 0 ? result : adopt(state, mount);
}

long root_slot(struct state *state, const struct plan_op *op)
{
    long result = prepare(state, "");

    if (result < 0 || op->slot < 0)
        return result < 0 ? result : -EINVAL;
    return adopt(state, state->plan.slots[op->slot]);
}

long root_readonly(struct state *state, const struct plan_op *op)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};

    (void)op;
    state->call = "mount_setattr";
    state->detail = "/";
    long result = mount_attributes(state->root_fd, 0, &attributes);
    return result < 0 ? result : 0;
}

/* pivot_root(".", ".") stacks the old root on the new one. It is taken away from within: "." has to be the old root then, for
 * seen from the new one it is covered. Nothing of the host is reachable afterwards, not even through a descriptor: all of
 * them close before the command runs. */
long root_pivot(struct state *state, const struct plan_op *op)
{
    (void)op;
    state->call = "open";
    state->detail = "/";
    long result, old = sys_call(__NR_openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
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
    state->call = "umount2";
    result = sys_call(__NR_umount2, ".", DETACH); /* scratch, which covers the old root */
    if (result >= 0)
        result = sys_call(__NR_umount2, ".", DETACH);
    path_close(old);
    if (result < 0)
        return result;
    state->call = "chdir";
    result = sys_call(__NR_chdir, "/");
    return result < 0 ? result : 0;
}
