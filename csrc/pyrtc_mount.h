/*
 * Mounts made before the container exists, and those and the namespaces of a process of our own.
 */
#ifndef PYRTC_INTERFACE_MOUNT_H
#define PYRTC_INTERFACE_MOUNT_H

#include "pyrtc.h"

/* ---- detached: mounts.c, view.c */

/* Clone the mount at fd as a detached tree. attributes: MOUNT_ATTR_* to set; userns_fd >= 0 maps
 * its owners. */
int pyrtc_clone_mount(int32_t fd, uint32_t recursive, uint64_t attributes, int32_t userns_fd,
                      struct pyrtc_error *error);

/* Mount overlayfs over the given layers (top first) and return the detached mount; without an
 * upper directory (-1) read-only, which takes two layers at least. */
int pyrtc_mount_overlay(const int32_t *lower_fds, uint32_t lower_count, int32_t upper_fd,
                        int32_t work_fd, uint32_t flags, struct pyrtc_error *error);

enum {
    PYRTC_VIEW_USERXATTR = 1, /* the layers are an ordinary user's: user.overlay.* */
    PYRTC_VIEW_OWN_USER = 2,  /* mount in a user namespace in which the caller is root */
};

/* Mount layers (paths, top first, at least two) read-only and return the detached mount. flags:
 * PYRTC_VIEW_*. */
int pyrtc_mount_view(const char *const *layers, uint32_t count, uint32_t flags,
                     struct pyrtc_error *error);

/* ---- for a process of our own: unshare.c, file_server.c */

/* Move this process, which has one thread, into new namespaces: CLONE_NEW*. */
int pyrtc_unshare(uint64_t flags, struct pyrtc_error *error);

/* Move this process, which has one thread, into the namespace of fd. */
int pyrtc_join_namespace(int32_t fd, struct pyrtc_error *error);

/* Give this process mounts of its own, of which nobody else sees anything. */
int pyrtc_own_mounts(struct pyrtc_error *error);

/* Attach a detached mount to the directory or file at target_fd. */
int pyrtc_attach_mount(int32_t mount_fd, int32_t target_fd, struct pyrtc_error *error);

#endif
