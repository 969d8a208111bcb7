/*
 * Overlays inside the container's mount namespace: the root itself, or one directory of a root
 * that is put together.
 */
#include "init.h"
#include "../overlay.h"

#include <errno.h>

#define MAX_LOWERS 500

static long open_directory(struct state *state, int parent, const char *path)
{
    state->call = "open";
    state->detail = path;
    return sys_call(__NR_openat, parent, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static long open_layers(struct state *state, const struct plan_op *op, uint32_t first,
                        struct overlay *overlay, int32_t *lowers)
{
    for (uint32_t i = first; i < op->string_count; i++) {
        long fd = open_directory(state, AT_FDCWD, plan_string(op, i));
        if (fd < 0)
            return fd;
        lowers[overlay->lower_count++] = (int32_t)fd;
    }
    state->detail = NULL;
    return 0;
}

static void close_layers(const struct overlay *overlay)
{
    for (uint32_t i = 0; i < overlay->lower_count; i++)
        path_close(overlay->lower_fds[i]);
    if (overlay->upper_fd >= 0)
        path_close(overlay->upper_fd);
    if (overlay->work_fd >= 0)
        path_close(overlay->work_fd);
}

static bool append_descriptor(char *buffer, size_t size, size_t *used, int fd)
{
    return text_append(buffer, size, used, "/proc/self/fd/") &&
           text_append_number(buffer, size, used, (uint32_t)fd);
}

/* The options of mount(2), which has one page for them: the layers by the short names that their
 * descriptors have in /proc. */
static bool old_options(char *data, size_t size, const struct overlay *overlay)
{
    size_t used = 0;
    bool fits = text_append(data, size, &used, "lowerdir=");

    for (uint32_t i = 0; i < overlay->lower_count && fits; i++)
        fits = (i == 0 || text_append(data, size, &used, ":")) &&
               append_descriptor(data, size, &used, overlay->lower_fds[i]);
    return fits && text_append(data, size, &used, ",upperdir=") &&
           append_descriptor(data, size, &used, overlay->upper_fd) &&
           text_append(data, size, &used, ",workdir=") &&
           append_descriptor(data, size, &used, overlay->work_fd) &&
           text_append(data, size, &used,
                       overlay->flags & PLAN_USERXATTR ? ",userxattr" : ",redirect_dir=nofollow") &&
           text_append(data, size, &used, ",metacopy=off") &&
           (!(overlay->flags & PLAN_VOLATILE) || text_append(data, size, &used, ",volatile"));
}

/* Before 6.7 overlayfs knows the layers from mount(2) only, which mounts on a path: on a directory
 * of scratch, from where it is taken again as a detached tree. */
static long mount_old(struct state *state, const struct overlay *overlay)
{
    struct mount_attr attributes = {.attr_set = overlay->attributes};
    char data[4096];

    state->call = "overlay lowerdir";
    if (!old_options(data, sizeof(data), overlay))
        return -E2BIG;
    state->call = "fchdir";
    long result = sys_call(__NR_fchdir, state->scratch_fd);
    if (result < 0)
        return result;
    state->call = "mkdirat";
    result = sys_call(__NR_mkdirat, state->scratch_fd, "stage", 0700);
    if (result < 0 && result != -EEXIST)
        return result;
    state->call = "mount overlay";
    result = sys_call(__NR_mount, "overlay", "stage", "overlay", 0, data);
    if (result < 0)
        return result;
    state->call = "open_tree";
    long mount = mount_clone(state->scratch_fd, "stage", 0);
    sys_call(__NR_umount2, "stage", DETACH);
    if (mount < 0)
        return mount;
    state->call = "mount_setattr";
    result = mount_attributes((int)mount, 0, &attributes);
    if (result < 0)
        path_close(mount);
    return result < 0 ? result : mount;
}

/* With PLAN_UPPER_TMPFS the R/W layer is in scratch: memory that is gone with the mount namespace.
 */
static long open_upper(struct state *state, const struct plan_op *op, const char *upper,
                       const char *work, struct overlay *overlay)
{
    int parent = AT_FDCWD;

    if (op->flags & PLAN_UPPER_TMPFS) {
        parent = state->scratch_fd;
        state->call = "mkdirat";
        state->detail = upper;
        long made = sys_call(__NR_mkdirat, parent, upper, op->mode);
        long result = made == -EEXIST ? 0 : made;
        if (result >= 0)
            result = sys_call(__NR_mkdirat, parent, work, 0700);
        /* The mount shows the attributes of the upper directory: they are to be those of the lower
         * one. */
        if (result >= 0 && made >= 0 && (op->a || op->b))
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

/* Layers from string `first` on, below the R/W directory and the work directory that come before
 * them. Returns a detached mount. */
static long make_overlay(struct state *state, const struct plan_op *op, uint32_t first,
                         struct overlay *overlay)
{
    long result =
        open_upper(state, op, plan_string(op, first - 2), plan_string(op, first - 1), overlay);

    if (result < 0)
        return result;
    overlay->flags = op->flags;
    overlay->attributes = op->flags & PLAN_DEVICES ? 0 : MOUNT_ATTR_NODEV;
    long mount = overlay_mount(overlay, &state->call);
    return mount == -EOPNOTSUPP ? mount_old(state, overlay) : mount;
}

long root_overlay(struct state *state, const struct plan_op *op)
{
    int32_t lowers[MAX_LOWERS];
    struct overlay overlay = {.lower_fds = lowers, .upper_fd = -1, .work_fd = -1};

    if (op->string_count < 3 || op->string_count - 2 > MAX_LOWERS)
        return -EINVAL;
    long result = open_layers(state, op, 2, &overlay, lowers);
    if (result >= 0)
        result = root_prepare(state, plan_text(op), plan_string(op, 2));
    if (result >= 0)
        result = make_overlay(state, op, 2, &overlay);
    if (result >= 0)
        result = root_adopt(state, result);
    close_layers(&overlay);
    return result;
}

long mount_overlay(struct state *state, const struct plan_op *op)
{
    int32_t lowers[MAX_LOWERS];
    struct overlay overlay = {.lower_fds = lowers, .upper_fd = -1, .work_fd = -1};

    if (op->string_count < 4 || op->string_count - 3 > MAX_LOWERS)
        return -EINVAL;
    long result = open_layers(state, op, 3, &overlay, lowers);
    if (result >= 0)
        result = make_overlay(state, op, 3, &overlay);
    if (result >= 0) {
        long mount = result;
        result = mount_to(state, mount, plan_string(op, 0), true, RESOLVE_NO_SYMLINKS);
        path_close(mount);
    }
    close_layers(&overlay);
    return result;
}
