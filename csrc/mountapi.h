/*
 * The mount API of Linux 5.2 and later as far as pyrtc uses it: constants that older headers lack,
 * and thin calls.
 */
#ifndef PYRTC_MOUNTAPI_H
#define PYRTC_MOUNTAPI_H

#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef AT_NO_AUTOMOUNT
#define AT_NO_AUTOMOUNT 0x800
#endif

#define MOUNT_PRIVATE                                                                              \
    (1UL << 18)             /* MS_PRIVATE; <sys/mount.h> and <linux/mount.h> exclude each other */
#define MOUNT_RECURSE 16384 /* MS_REC */

/* openat2(2) confined to a directory. With ".." in the path it answers EAGAIN when anything was
 * renamed or mounted anywhere in the system meanwhile, which is no more than a request to ask
 * again; one who renames without end is not waited for. */
static inline long open_confined(int directory, const char *path, const struct open_how *how)
{
    long result = -EAGAIN;

    for (int attempt = 0; attempt < 1000 && result == -EAGAIN; attempt++)
        result = sys_call(__NR_openat2, directory, path, how, sizeof(*how));
    return result;
}

static inline long mount_option(long fs, const char *key, const char *value)
{
    return sys_call(__NR_fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value,
                    0);
}

/* Without a source, df and /proc/mounts say "none" where people look for "overlay" and "tmpfs". */
static inline long mount_open(const char *type)
{
    long fs = sys_call(__NR_fsopen, type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return fs;
    long result = mount_option(fs, "source", type);
    if (result < 0) {
        sys_call(__NR_close, fs);
        return result;
    }
    return fs;
}

static inline long mount_option_fd(long fs, const char *key, int fd)
{
    return sys_call(__NR_fsconfig, fs, FSCONFIG_SET_FD, key, NULL, fd);
}

static inline long mount_create(long fs, uint64_t attributes)
{
    long result = sys_call(__NR_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    return result < 0 ? result : sys_call(__NR_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
}

static inline long mount_clone(int directory, const char *path, unsigned flags)
{
    return sys_call(__NR_open_tree, directory, path,
                    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_NO_AUTOMOUNT | flags);
}

static inline long mount_attributes(int fd, unsigned flags, const struct mount_attr *attributes)
{
    return sys_call(__NR_mount_setattr, fd, "", AT_EMPTY_PATH | flags, attributes,
                    sizeof(*attributes));
}

/* Attach the detached mount to directory/path; with an empty path to directory itself. */
static inline long mount_attach(long mount, int directory, const char *path)
{
    unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (*path ? 0 : MOVE_MOUNT_T_EMPTY_PATH);
    return sys_call(__NR_move_mount, mount, "", directory, path, flags);
}

#endif
