/*
 * What stacked layers show together, read-only, as a directory descriptor: for filling volumes and
 * copying roots.
 *
 * An ordinary user may mount overlayfs only inside a user namespace, and kernels before 6.7 only
 * on a path, where others would see it. A child that borrows this memory and shares the descriptor
 * table makes the namespaces, mounts, and is gone; the detached mount stays behind as a descriptor
 * here.
 */
#include "pyrtc_mount.h"

#include "borrow.h"
#include "error.h"
#include "mountapi.h"
#include "overlay.h"
#include "plan.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_LAYERS 500

struct view {
    struct overlay overlay;
    int32_t *lowers;
    const char *const *layers;
    const char *stage;  /* a directory to mount on: one of the layers */
    const char *id_map; /* of the new user namespace, or NULL */
    size_t id_map_size;
    char options[4096]; /* of mount(2), empty where they do not fit */
    const char *call;
    long result;
};

static long write_file(const char *path, const char *text, size_t size)
{
    long fd = sys_call(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long result = sys_call(__NR_write, fd, text, size);
    sys_call(__NR_close, fd);
    return result;
}

/* The mount namespace is the child's own and private, so the mount is seen by nobody and goes with
 * it. */
static long mount_old(struct view *view)
{
    struct mount_attr attributes = {.attr_set = view->overlay.attributes};

    view->call = "overlay lowerdir";
    if (!view->options[0])
        return -E2BIG;
    view->call = "make all mounts private";
    long result = sys_call(__NR_mount, NULL, "/", NULL, MOUNT_PRIVATE | MOUNT_RECURSE, NULL);
    if (result < 0)
        return result;
    view->call = "mount overlay";
    result = sys_call(__NR_mount, "overlay", view->stage, "overlay", 0, view->options);
    if (result < 0)
        return result;
    view->call = "open_tree";
    result = mount_clone(AT_FDCWD, view->stage, 0);
    if (result < 0)
        return result;
    view->call = "mount_setattr";
    long set = mount_attributes((int)result, 0, &attributes);
    if (set >= 0)
        return result;
    /* The descriptor table is the caller's. */
    sys_call(__NR_close, result);
    return set;
}

/* overlayfs takes directories of its own mount namespace only, so each is opened again here, under
 * the same number. */
static long reopen(struct view *view)
{
    long result = 0;

    view->call = "open a layer";
    for (uint32_t i = 0; i < view->overlay.lower_count && result >= 0; i++) {
        long fd =
            sys_call(__NR_openat, AT_FDCWD, view->layers[i], O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        result = fd < 0 ? fd : sys_call(__NR_dup3, fd, view->lowers[i], O_CLOEXEC);
        if (fd >= 0)
            sys_call(__NR_close, fd);
    }
    return result;
}

static void view_child(void *argument)
{
    struct view *view = argument;

    view->result = 0;
    if (view->id_map) {
        view->call = "write the id map";
        view->result = write_file("/proc/self/setgroups", "deny", 4);
        if (view->result >= 0)
            view->result = write_file("/proc/self/uid_map", view->id_map, view->id_map_size);
    }
    if (view->result >= 0)
        view->result = reopen(view);
    if (view->result >= 0)
        view->result = overlay_mount(&view->overlay, &view->call);
    if (view->result == -EOPNOTSUPP)
        view->result = mount_old(view);
    for (;;)
        sys_call(__NR_exit, 0);
}

static void close_layers(struct overlay *overlay)
{
    for (uint32_t i = 0; i < overlay->lower_count; i++)
        close(overlay->lower_fds[i]);
}

static void old_options(struct view *view)
{
    size_t used = 0;

    for (uint32_t i = 0; i < view->overlay.lower_count; i++) {
        used += (size_t)snprintf(view->options + used, sizeof(view->options) - used,
                                 "%s/proc/self/fd/%d",
                                 i ? ":" : "lowerdir=", view->overlay.lower_fds[i]);
        if (used >= sizeof(view->options))
            break;
    }
    if (used < sizeof(view->options))
        used += (size_t)snprintf(
            view->options + used, sizeof(view->options) - used, "%s,metacopy=off",
            view->overlay.flags & PLAN_USERXATTR ? ",userxattr" : ",redirect_dir=nofollow");
    if (used >= sizeof(view->options))
        view->options[0] = '\0';
}

int pyrtc_mount_view(const char *const *layers, uint32_t count, uint32_t flags,
                     struct pyrtc_error *error)
{
    int32_t lowers[MAX_LAYERS], pidfd;
    char id_map[32];
    struct view view = {
        .overlay = {.lower_fds = lowers,
                    .upper_fd = -1,
                    .work_fd = -1,
                    .flags = flags & PYRTC_VIEW_USERXATTR ? PLAN_USERXATTR : 0,
                    .attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV},
        .call = "",
        .result = -EIO,
    };
    uint64_t namespaces = CLONE_NEWNS | CLONE_FILES;

    if (count < 2 || count > MAX_LAYERS)
        return pyrtc_fail(error, EINVAL, "stack the layers", "%u layers; 2 to %d can be stacked",
                          count, MAX_LAYERS);
    view.stage = layers[0];
    view.layers = layers;
    view.lowers = lowers;
    for (; view.overlay.lower_count < count; view.overlay.lower_count++) {
        const char *layer = layers[view.overlay.lower_count];
        int fd = open(layer, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
            int code = errno;
            close_layers(&view.overlay);
            return pyrtc_fail(error, code, "open a layer", "%s", layer);
        }
        lowers[view.overlay.lower_count] = fd;
    }
    old_options(&view);
    if (flags & PYRTC_VIEW_OWN_USER) {
        view.id_map_size = (size_t)snprintf(id_map, sizeof(id_map), "0 %u 1", (unsigned)geteuid());
        view.id_map = id_map;
        namespaces |= CLONE_NEWUSER;
    }
    long pid = borrow(namespaces, -1, view_child, &view, &pidfd);
    if (pid >= 0)
        borrow_end(pidfd);
    close_layers(&view.overlay);
    if (pid < 0)
        return pyrtc_fail(error, (int)-pid, "make a mount namespace (clone3)", "");
    if (view.result < 0)
        return pyrtc_fail(error, (int)-view.result, view.call, "");
    return (int)view.result;
}
