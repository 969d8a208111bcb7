/*
 * Mounts that the caller makes before the container exists, as detached trees: they belong to a
 * descriptor, so they are gone when it is closed, whatever happens to the process.
 */
#include "pyrtc_mount.h"
#include "pyrtc_tree.h"

#include "error.h"
#include "mountapi.h"
#include "overlay.h"
#include "plan.h"
#include "util.h"

#include <errno.h>

int pyrtc_clone_mount(int32_t fd, uint32_t recursive, uint64_t attributes, int32_t userns_fd,
                      struct pyrtc_error *error)
{
    unsigned depth = recursive ? AT_RECURSIVE : 0;
    /* A clone of a shared mount is in its peer group: what is mounted there later would reach the
     * host. */
    struct mount_attr wanted = {.attr_set = attributes, .propagation = MOUNT_PRIVATE};

    owned_fd int mount = (int)mount_clone(fd, "", AT_EMPTY_PATH | depth);
    if (mount < 0)
        return pyrtc_fail(error, -mount, "clone a mount (open_tree)", "");
    long result = mount_attributes(mount, depth, &wanted);
    if (result < 0)
        return pyrtc_fail(error, (int)-result, "set the attributes of a mount (mount_setattr)", "");
    if (userns_fd >= 0) {
        struct mount_attr map = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};
        /* Submounts may be of file systems that cannot map; the map is for the tree's own files. */
        result = mount_attributes(mount, 0, &map);
        if (result < 0)
            return pyrtc_fail(
                error, (int)-result, "map the owners of a mount (mount_setattr IDMAP)",
                "its file system cannot map owners: ext4, XFS and Btrfs can, tmpfs from Linux 6.3");
    }
    return steal_fd(&mount);
}

int pyrtc_mount_overlay(const int32_t *lower_fds, uint32_t lower_count, int32_t upper_fd,
                        int32_t work_fd, uint32_t flags, struct pyrtc_error *error)
{
    struct overlay overlay = {
        .lower_fds = lower_fds,
        .lower_count = lower_count,
        .upper_fd = upper_fd,
        .work_fd = work_fd,
        .flags = flags,
        .attributes = MOUNT_ATTR_NODEV,
    };
    const char *call;
    long mount = overlay_mount(&overlay, &call);

    if (mount == -EOPNOTSUPP)
        return pyrtc_fail(error, EOPNOTSUPP, call,
                          "mapped layers need Linux 6.8 or newer; use --driver copy");
    if (mount < 0)
        return pyrtc_fail(error, (int)-mount, call, "");
    return (int)mount;
}

int pyrtc_openat2(int32_t directory_fd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    return (int)open_confined(directory_fd, path, &how);
}
