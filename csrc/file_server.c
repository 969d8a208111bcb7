/*
 * What a process needs that works on the files of a container for somebody else: the container's
 * user namespace, or its ids, and mounts of its own. Only for a program of its own with one thread:
 * all of it changes what the whole process may do and what others may do to it.
 */
#include "pyrtc_mount.h"
#include "pyrtc_tree.h"

#include "error.h"
#include "mountapi.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A file that is made in a mount with mapped owners must be made by somebody whom the map knows.
 * Changing the id for files takes the capabilities over files out of the effective set; what is
 * permitted stays, so they are taken back. */
int pyrtc_file_ids(uint32_t uid, uint32_t gid, struct pyrtc_error *error)
{
    static const char step[] = "make files as the container's user";
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];

    setfsgid(gid);
    setfsuid(uid);
    if ((uint32_t)setfsgid((gid_t)-1) != gid || (uint32_t)setfsuid((uid_t)-1) != uid)
        return pyrtc_fail(error, EPERM, step, "%s", "");
    if (syscall(SYS_capget, &header, sets) < 0)
        return pyrtc_fail(error, errno, step, "capget");
    sets[0].effective = sets[0].permitted;
    sets[1].effective = sets[1].permitted;
    if (syscall(SYS_capset, &header, sets) < 0)
        return pyrtc_fail(error, errno, step, "capset");
    return 0;
}

int pyrtc_join_namespace(int32_t fd, struct pyrtc_error *error)
{
    if (setns(fd, 0) < 0)
        return pyrtc_fail(error, errno, "enter the container's user namespace (setns)", "%s", "");
    return 0;
}

int pyrtc_own_mounts(struct pyrtc_error *error)
{
    long result;

    if (unshare(CLONE_NEWNS) < 0)
        return pyrtc_fail(error, errno, "make a mount namespace (unshare)", "%s", "");
    result = sys_call(__NR_mount, NULL, "/", NULL, MOUNT_PRIVATE | MOUNT_RECURSE, NULL);
    if (result < 0)
        return pyrtc_fail(error, (int)-result, "make all mounts private", "%s", "");
    return 0;
}

int pyrtc_attach_mount(int32_t mount_fd, int32_t target_fd, struct pyrtc_error *error)
{
    long result = mount_attach(mount_fd, target_fd, "");

    if (result < 0)
        return pyrtc_fail(error, (int)-result, "attach a mount (move_mount)", "%s", "");
    return 0;
}
